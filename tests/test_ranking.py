"""Bradley-Terry: against the closed form of two policies, a known truth, and what style hides."""

import math

import numpy as np
import pytest

from workbench.drift import ranking
from workbench.drift.ranking import Decided, rank


def games(wins, losses, first="a", second="b"):
    return [Decided(first, second, float(i < wins), str(i)) for i in range(wins + losses)]


def test_two_policies_have_the_log_odds_of_their_score(monkeypatch):
    monkeypatch.setattr(ranking, "RIDGE", 1e-9)
    found = dict(rank(games(30, 10)).strengths)
    # log(30 / 10) apart, half of it each side of the mean; standard error of the log odds sqrt(1/30 + 1/10)
    assert found["a"].value == pytest.approx(math.log(3) / 2, abs=1e-6)
    assert found["b"].value == pytest.approx(-math.log(3) / 2, abs=1e-6)
    width = (found["a"].high - found["a"].low) / 2
    assert width == pytest.approx(1.96 * math.sqrt(1 / 30 + 1 / 10) / 2 * math.sqrt(40 / 39), rel=1e-3)


def test_sides_and_ties_change_nothing():
    turned = [Decided(d.second, d.first, 1 - d.score, d.group) for d in games(30, 10)]
    assert dict(rank(turned).strengths)["a"].value == pytest.approx(dict(rank(games(30, 10)).strengths)["a"].value)
    tied = [d._replace(score=0.5) for d in games(30, 10)]
    assert dict(rank(tied).strengths)["a"].value == pytest.approx(0)


def test_who_never_lost_is_strong_and_not_infinite():
    found = dict(rank(games(40, 0)).strengths)
    assert 2 < found["a"].value < 10


@pytest.mark.parametrize("wins", [5, 10, 40])
def test_who_always_won_may_still_be_hardly_better(wins):
    # Wilson's lower bound of a share of 1 of n is n / (n + 1.96^2); in logits ln(n / 3.84), half of it for each policy
    lowest = math.log(wins / 1.96**2) / 2
    found = dict(rank(games(wins, 0)).strengths)["a"]
    assert found.low == pytest.approx(lowest, abs=1.2)
    assert found.high - found.low > 2


def test_all_ties_leave_room():
    found = dict(rank([Decided("a", "b", 0.5, str(i)) for i in range(20)]).strengths)["a"]
    # half of 1.96 standard errors of a log odds at a half: sqrt(4 / 20)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * math.sqrt(4 / 20) / 2, rel=0.02)


def test_policies_never_compared_with_the_others_have_no_strength():
    found = rank([*games(12, 8), *games(12, 8, "b", "c"), *games(9, 1, "x", "y")]).strengths
    assert [name for name, value in found if value.value is None] == ["x", "y"]
    assert dict(found[:3]) == dict(rank([*games(12, 8), *games(12, 8, "b", "c")]).strengths)


def test_too_few_prompts_are_said():
    few = [d._replace(group=str(i % 4)) for i, d in enumerate(games(30, 10))]
    assert dict(rank(few).strengths)["a"].value is None


def test_known_strengths_lie_in_their_intervals():
    rng, truth, covered = np.random.default_rng(5), {"a": 0.6, "b": 0.0, "c": -0.6}, 0
    for _ in range(100):
        decided = []
        for i in range(150):
            x, y = rng.choice(["a", "b", "c"], 2, replace=False)
            won = rng.random() < 1 / (1 + math.exp(truth[y] - truth[x]))
            decided.append(Decided(str(x), str(y), float(won), str(i)))
        covered += sum(v.low <= truth[name] <= v.high for name, v in rank(decided).strengths)
    assert 0.90 <= covered / 300 <= 0.99


def test_a_policy_that_is_only_longer_loses_its_lead_when_length_is_held():
    rng, decided = np.random.default_rng(0), []
    for i in range(400):
        longer = float(rng.normal(1, 1))
        won = rng.random() < 1 / (1 + math.exp(-1.5 * longer))
        decided.append(Decided("long", "short", float(won), str(i), (longer,)))
    plain = dict(rank([d._replace(differences=()) for d in decided]).strengths)["long"]
    held = rank(decided)
    assert plain.low > 0.2
    assert dict(held.strengths)["long"].low < 0 < dict(held.strengths)["long"].high
    assert held.effects[0].value == pytest.approx(1.5, abs=0.5)


def test_unlike_differences_are_refused():
    with pytest.raises(ValueError, match="as many differences"):
        rank([d._replace(differences=(1.0,) * (i % 2)) for i, d in enumerate(games(30, 10))])
