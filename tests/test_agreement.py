"""Agreement by hand, by published examples, and against the definitions written out pair by pair."""

import itertools

import krippendorff
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from preference_data.agreement import cohen_kappa, fleiss_kappa, krippendorff_alpha, percent

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C: four observers, twelve units
OBSERVERS = {
    "a": [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    "b": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    "c": [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    "d": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
}
UNITS = [{who: given[u] for who, given in OBSERVERS.items() if given[u] is not None} for u in range(12)]


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_the_published_example(level, published):
    found = krippendorff_alpha(UNITS, rng(), level=level)
    assert found.value == pytest.approx(published, abs=5e-4)
    # one unit has a single value and is left out; 40 values remain in 11 units
    assert (found.items, found.judgements) == (11, 40)
    assert found.low < found.value < found.high


def test_fleiss_kappa_by_hand():
    judged = [{"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 1, "c": 2}, {"a": 2, "b": 2, "c": 2}, {"a": 1, "b": 2, "c": 2}]
    # agreeing pairs per item: 1, 1/3, 1, 1/3: observed 2/3; half of all answers are 1: chance 1/2
    assert fleiss_kappa(judged, rng()).value == pytest.approx((2 / 3 - 1 / 2) / (1 - 1 / 2), abs=1e-12)


def test_cohen_kappa_by_hand():
    # 20 both yes, 5 yes and no, 10 no and yes, 15 both no: agree 0.7, chance 0.5 x 0.6 + 0.5 x 0.4 = 0.5
    table = [(1, 1)] * 20 + [(1, 0)] * 5 + [(0, 1)] * 10 + [(0, 0)] * 15
    judged = [{"a": a, "b": b, "c": 1} for a, b in table] + [{"a": 1}]
    found = cohen_kappa(judged, "a", "b", rng())
    assert found.value == pytest.approx((0.7 - 0.5) / (1 - 0.5), abs=1e-12)
    assert (found.items, found.judgements) == (50, 100)


def test_weighted_kappa_by_hand():
    judged = [{"a": a, "b": b} for a, b in ((1, 1), (2, 3), (3, 3), (1, 3))]
    # a gave 1 twice, 2, 3; b gave 1, 3 three times. Distances seen: 0, 1, 0, 2.
    # by chance: a=1 against b (0, 2, 2, 2) twice, a=2 against (1, 1, 1, 1), a=3 against (2, 0, 0, 0)
    linear = 1 - (3 / 4) / ((6 + 6 + 4 + 2) / 16)
    assert cohen_kappa(judged, "a", "b", rng(), weights="linear").value == pytest.approx(linear, abs=1e-12)
    quadratic = 1 - (5 / 4) / ((12 + 12 + 4 + 4) / 16)
    assert cohen_kappa(judged, "a", "b", rng(), weights="quadratic").value == pytest.approx(quadratic, abs=1e-12)


def test_percent_counts_pairs_of_judgements():
    # of three judgements one pair of three agrees, of two one of one: 2 of 4
    judged = [{"a": 1, "b": 1, "c": 2}, {"a": 2, "b": 2}, {"a": 1}]
    found = percent(judged, rng())
    assert (found.value, found.items, found.judgements) == (0.5, 2, 5)
    assert found.low is None
    assert "too few" in found.why


@pytest.mark.parametrize("figure", [fleiss_kappa, lambda j, r: krippendorff_alpha(j, r, level="ordinal")])
@pytest.mark.parametrize(
    ("judged", "why"),
    [([], "no item"), ([{"a": 1}], "no item"), ([{"a": 1, "b": 1}] * 9, "the same answer")],
)
def test_what_is_not_defined_says_why(figure, judged, why):
    found = figure(judged, rng())
    assert (found.value, found.low, found.high) == (None, None, None)
    assert why in found.why


def test_fleiss_kappa_needs_equal_numbers_of_judgements():
    found = fleiss_kappa([{"a": 1, "b": 1}, {"a": 1, "b": 2, "c": 1}], rng())
    assert found.value is None
    assert "2 to 3 judgements" in found.why


ITEMS = st.lists(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=12
)


@given(ITEMS)
def test_alpha_is_one_minus_observed_over_expected_disagreement(judged):
    """Krippendorff's definition, value by value, without coincidence matrices."""
    several = [list(each.values()) for each in judged if len(each) > 1]
    values = [v for each in several for v in each]

    def apart(c, k):
        low, high = min(c, k), max(c, k)
        between = sum(values.count(g) for g in range(low, high + 1))
        return (between - (values.count(c) + values.count(k)) / 2) ** 2 if c != k else 0.0

    observed = sum(
        apart(c, k) / (len(each) - 1) for each in several for c, k in itertools.permutations(each, 2)
    )  # fmt: skip
    expected = sum(apart(c, k) for c, k in itertools.permutations(values, 2))
    found = krippendorff_alpha(judged, rng(), level="ordinal").value
    if expected == 0:
        assert found is None
    else:
        assert found == pytest.approx(1 - (len(values) - 1) * observed / expected, abs=1e-9)


@given(ITEMS)
def test_names_of_annotators_and_order_of_items_make_no_difference(judged):
    other = [{f"x{who}": answer for who, answer in each.items()} for each in reversed(judged)]
    for level in ("nominal", "ordinal", "interval"):
        one, two = (krippendorff_alpha(j, rng(), level=level).value for j in (judged, other))
        assert one == pytest.approx(two, abs=1e-9)


def test_the_interval_covers():
    """Two annotators who agree on 80 % of items of two balanced answers: kappa 0.6."""
    covered = 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        first = draw.integers(0, 2, 100)
        second = np.where(draw.random(100) < 0.8, first, 1 - first)
        found = cohen_kappa([{"a": a, "b": b} for a, b in zip(first, second, strict=True)], "a", "b", draw)
        covered += found.low <= 0.6 <= found.high
    # 60 draws at 0.95: mean 57, standard deviation 1.7
    assert covered >= 51


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
@given(
    judged=st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 5), min_size=0, max_size=4), max_size=12)
)
def test_alpha_is_that_of_the_reference_implementation(level, judged):
    found = krippendorff_alpha(judged, rng(), level=level).value
    table = [[each.get(who, np.nan) for each in judged] for who in "abcd"]
    answers = {a for each in judged if len(each) > 1 for a in each.values()}
    if len(answers) < 2:
        assert found is None  # the reference refuses, or divides by nothing
    else:
        assert found == pytest.approx(
            krippendorff.alpha(np.array(table, dtype=float), level_of_measurement=level), abs=1e-9
        )


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
@given(pairs=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=20))
def test_kappa_is_that_of_the_reference_implementation(weights, pairs):
    found = cohen_kappa([{"a": x, "b": y} for x, y in pairs], "a", "b", rng(), weights=weights).value
    if len({answer for pair in pairs for answer in pair}) < 2:
        assert found is None
    else:
        expected = cohen_kappa_score(*zip(*pairs, strict=True), weights=None if weights == "none" else weights)
        assert found == pytest.approx(expected, abs=1e-9)


def test_of_questions_of_one_item_the_interval_is_as_wide_as_of_the_items():
    draw = np.random.default_rng(0)
    alike = [{"a": float(x), "b": float(y)} for x, y in draw.integers(0, 2, (40, 2))]
    repeated = [each for each in alike for _ in range(6)]
    one, together, apart = (
        percent(alike, rng()),
        percent(repeated, rng(), groups=[k // 6 for k in range(240)]),
        percent(repeated, rng()),
    )
    assert one.value == together.value == apart.value
    assert together.high - together.low == pytest.approx(one.high - one.low, rel=0.15)
    assert apart.high - apart.low < 0.6 * (one.high - one.low)
    assert (
        percent(repeated[:24], rng(), groups=[k // 6 for k in range(24)]).why == "4 items are too few for an interval"
    )
