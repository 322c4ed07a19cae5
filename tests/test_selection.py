"""What to ask next: chances by hand, exact chances of the draw, the random share, and estimates that use them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preference_data.selection import choose, inclusion

SCORES = st.dictionaries(st.text(min_size=1, max_size=4), st.floats(0, 1e6), min_size=1, max_size=30)


def test_chances_by_hand():
    # Two of four: 0.2 spread evenly gives 0.05 each, 0.8 by worth gives 0.8 x (1, 2, 3, 4) / 10; times two
    found = inclusion({"a": 1, "b": 2, "c": 3, "d": 4}, 2)
    assert found == pytest.approx({"a": 0.26, "b": 0.42, "c": 0.58, "d": 0.74})


def test_nobodys_chance_exceeds_one_and_the_rest_goes_to_the_others():
    # Shares 0.85 and three of 0.05; twice 0.85 is cut to 1, and one draw is left for three alike
    found = inclusion({"a": 9, "b": 0, "c": 0, "d": 0}, 2)
    assert found == pytest.approx({"a": 1, "b": 1 / 3, "c": 1 / 3, "d": 1 / 3})


def test_without_any_worth_all_are_alike():
    assert inclusion({"a": 0, "b": 0, "c": 0}, 1) == pytest.approx(dict.fromkeys("abc", 1 / 3))


def test_all_are_drawn_where_there_are_no_more():
    assert {c.key: c.propensity for c in choose({"a": 5, "b": 0}, 3)} == {"a": 1, "b": 1}
    assert choose({}, 3) == []


@given(SCORES, st.integers(0, 40), st.floats(0.2, 1))
def test_chances_sum_to_the_count_and_all_have_one(scores, count, share):
    found = inclusion(scores, count, random_share=share)
    assert sum(found.values()) == pytest.approx(min(count, len(scores)))
    assert all(chance <= 1 + 1e-9 for chance in found.values())
    if 0 < count < len(scores):
        # at least the even part of the draw, which the cap on others can only raise
        assert min(found.values()) >= share * count / len(scores) * (1 - 1e-9)


@given(SCORES, st.integers(0, 40), st.integers(0, 5))
def test_as_many_as_asked_for_and_none_twice(scores, count, seed):
    drawn = [c.key for c in choose(scores, count, seed=seed)]
    assert len(drawn) == len(set(drawn)) == min(count, len(scores))


def test_each_is_drawn_as_often_as_its_chance_says():
    scores = {str(k): float(k) for k in range(12)}
    chances = inclusion(scores, 4)
    draws = 4000
    times = dict.fromkeys(scores, 0)
    for seed in range(draws):
        for each in choose(scores, 4, seed=seed):
            times[each.key] += 1
            assert each.propensity == chances[each.key]
    for key, chance in chances.items():
        # five standard deviations of a binomial share
        assert abs(times[key] / draws - chance) < 5 * np.sqrt(chance * (1 - chance) / draws)


def test_weighting_by_the_propensity_estimates_the_whole():
    # 40 values that go with the scores: a plain mean of what is drawn is biased, the weighted one is not
    values = {f"{k:02d}": k / 39 for k in range(40)}
    plain, weighted = [], []
    for seed in range(2000):
        drawn = choose(values, 10, seed=seed)
        plain.append(np.mean([values[c.key] for c in drawn]))
        weighted.append(sum(values[c.key] / c.propensity for c in drawn) / 40)
    assert np.mean(weighted) == pytest.approx(0.5, abs=0.01)
    assert np.mean(plain) > 0.6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"random_share": 0.1}, "random_share: got 0.1; expected a share from 0.2 to 1"),
        ({"count": -1}, "count: got -1"),
        ({"scores": {"a": -1.0}}, "score of a: got -1.0"),
        ({"scores": {"a": float("nan"), "b": 1.0}}, "score of a: got nan"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        inclusion(**({"scores": {"a": 1.0}, "count": 1} | options))
