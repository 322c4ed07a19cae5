"""The bench of rounds: what is counted of a round, and in which order sides take their turns."""

import pytest

from workbench.bench import rounds
from workbench.bench.rounds import PARTS, _in_turns, _Timed
from workbench.tasks import Progress


def timed(*seen):
    return _Timed("child", 99.0, [(at, Progress(step, done, total, {})) for at, step, done, total in seen])


def test_answers_are_counted_once_for_each_time_something_is_scored():
    round_ = timed(
        (0, "score", 2, 5), (1, "score", 5, 5),  # the first policy: 5
        (2, "score", 3, 3),  # the next one: 3
        (3, "optimise", 7, 7),  # no answers
        (4, "score", 1, 4), (5, "score", 4, 4),  # after training: 4
    )  # fmt: skip
    assert round_.scored() == 5 + 3 + 4
    assert timed((0, "optimise", 1, 1)).scored() == 0


def test_work_is_the_time_within_runs_of_equal_steps_and_not_between_them():
    round_ = timed(
        (10, "score", 1, 3), (12, "score", 3, 3),  # 2
        (50, "optimise", 1, 2), (51, "optimise", 1, 2), (55, "optimise", 2, 2),  # 5; the 38 before it are none
        (80, "evaluate", 1, 1),  # one sign alone tells nothing
        (90, "score", 1, 2), (91, "score", 2, 2),  # 1
    )  # fmt: skip
    assert round_.worked_s() == 2 + 5 + 1
    assert timed().worked_s() == 0


def test_the_side_that_goes_first_changes_from_turn_to_turn():
    assert list(_in_turns("ab", 3)) == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]


class World:
    """A machine that gets slower by a second with every round, of which the first takes 1000 s more."""

    def __init__(self, folder, scale, tell):
        self.scale, self.tell = scale, tell
        self.lineage = ["base"]
        self.asked = []
        made.append(self)

    def grow(self, policies):
        self.lineage = [f"p{i}" for i in range(policies)]

    def round(self, version, anchors, *, seed, where="here"):
        seconds = 100.0 + len(self.asked) + 1000.0 * (not self.asked)
        self.asked.append((len(anchors), where, seed))
        signs = [(at, Progress("optimise", 1, 1, {})) for at in (0.0, seconds)]
        scored = [(0.0, Progress("score", len(anchors), len(anchors), {}))]
        return _Timed("child", seconds, signs + scored)


made = []


@pytest.fixture
def slower(monkeypatch):
    made.clear()
    monkeypatch.setattr(rounds, "_World", World)


def test_on_ray_the_first_round_is_not_counted_and_neither_side_is_favoured(slower):
    (found,) = PARTS["Ray"](lambda _: None, quick=False)
    first, *counted = made[0].asked
    assert first[1] == "here"
    assert [where for _, where, _ in counted] == ["here", "ray", "ray", "here", "here", "ray"]
    assert len({seed for *_, seed in made[0].asked}) == 7, "a round of equal settings would be taken over, not run"
    # here: 101, 104, 105; on Ray: 102, 103, 106
    assert found.value == pytest.approx(103 / 104)
    assert found.note == "103.0 against 104.0 s; medians of 3, equal threads"


def test_one_anchor_and_four_take_turns_at_going_first(slower):
    seen_before, passes = PARTS["anchors"](lambda _: None, quick=False)
    assert [count for count, *_ in made[0].asked] == [1, 4, *(1, 4, 4, 1) * 2]  # the first two are new to the pairs
    # one anchor: 102, 105, 106, 109; four: 103, 104, 107, 108; both have a median of 105.5
    assert seen_before.value == 1
    assert seen_before.note == "105.5 against 105.5 s; medians of 4, 384 pairs"
    assert passes.value == 4 / 1
