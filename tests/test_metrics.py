"""Gains, losses and transfer from numbers per item, against arithmetic in the comments."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.drift.metrics import (
    Series,
    accuracy,
    accuracy_change,
    accuracy_relative,
    bits_per_byte,
    bits_tax,
    by_answer,
    by_quartile,
    change,
    distinct_2,
    flips,
    hits,
    kl_per_token,
    length,
    margin_per_token,
    mean_margin,
    series,
    step_tax,
    tax,
    turned_of,
)
from workbench.drift.retention import (
    average_performance,
    backward_transfer,
    forgetting,
    forward_transfer,
    last,
    retention_matrix,
)
from workbench.drift.uncertainty import not_enough, paired_shares, proportion
from workbench.tasks import Item


def of(values, groups=None):
    ids = tuple(f"i{k:03}" for k in range(len(values)))
    return Series(ids, np.array(values, dtype=float), tuple(groups or ids))


def item(name, value, **other):
    facts = {"suite": "choice", "item": name, "metric": "correct", "value": value, "group": name}
    return Item(**(facts | other), slices={}, detail={})


def right(count, of_=20):
    """Margins of which `count` are above zero."""
    return of([1.0] * count + [-1.0] * (of_ - count))


def test_a_series_is_sorted_and_of_one_metric():
    found = series([item("b", 2.0), item("a", 1.0)])
    assert found.items == ("a", "b")
    assert found.values.tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"got \['a'\] more than once"):
        series([item("a", 2.0), item("a", 1.0)])
    with pytest.raises(ValueError, match="one metric of one suite expected"):
        series([item("a", 2.0), item("b", 1.0, metric="margin")])


def test_accuracy_counts_ties_half():
    # 5 above, 1 tie, 2 below: 5.5 of 8
    assert accuracy(of([1, 2, 3, 4, 5, 0, -1, -2])).value == 5.5 / 8
    assert accuracy(of([math.nan, 1, 1, 1, 1, 1])).value is None
    assert accuracy(of([])).value is None


def test_accuracy_relative_to_base():
    # margin - base: 1, 1, 0, -1, -1, 1: 3.5 of 6
    assert accuracy_relative(of([2, 0, -3, 4, 0, 1]), of([1, -1, -3, 5, 1, 0])).value == 3.5 / 6
    # every policy against itself ties everywhere
    assert accuracy_relative(right(7), right(7)).value == 0.5


def test_margins():
    assert mean_margin(of([1, 2, 3, 4, 10])).value == 4
    # -10/5 - -9/3 = 1; -8/4 - -2/1 = 0; three of -4/4 - -6/2 = 2: mean 7/5
    found = margin_per_token(
        of([-10, -8, -4, -4, -4]), of([-9, -2, -6, -6, -6]), of([5, 4, 4, 4, 4]), of([3, 1, 2, 2, 2])
    )
    assert found.value == pytest.approx(1.4)


def test_taxes_are_positive_where_something_was_lost():
    base, child = hits(right(15)), hits(right(12))
    assert tax(base, child).value == pytest.approx(0.15)
    assert step_tax(base, child) == tax(base, child)
    assert accuracy_change(right(12), right(15)).value == pytest.approx(-0.15)
    # 10 + 20 + 30 + 40 + 50 = 150 bits, the child needs 1 more for each text: 5/150
    assert bits_tax(of([10, 20, 30, 40, 50]), of([11, 21, 31, 41, 51])).value == pytest.approx(5 / 150)
    assert change(of([3, 3, 3, 3, 8]), of([1, 1, 1, 1, 1])).value == 3


def test_ratios():
    # 8 + 12 + 20 + 10 + 10 = 60 bits over 4 + 6 + 10 + 5 + 5 = 30 bytes
    assert bits_per_byte(of([8, 12, 20, 10, 10]), of([4, 6, 10, 5, 5])).value == 2
    # nats over tokens, not the mean of the samples' rates: (1 + 1 + 1 + 1 + 6)/(1 + 1 + 1 + 1 + 16) = 0.5
    assert kl_per_token(of([1, 1, 1, 1, 6]), of([1, 1, 1, 1, 16])).value == 0.5
    assert length(of([2, 4, 6, 8, 10])).value == 6


def test_kl_error_is_clustered():
    kl, tokens = np.random.default_rng(0).normal(5, 2, 20), np.full(20, 10.0)
    alone = kl_per_token(of(kl), of(tokens))
    groups = [f"g{k // 4}" for k in range(80)]
    grouped = Series(tuple(map(str, range(80))), np.repeat(kl, 4), tuple(groups))
    repeated = kl_per_token(grouped, Series(grouped.items, np.repeat(tokens, 4), grouped.groups))
    assert repeated[:3] == pytest.approx(alone[:3])


def test_distinct_2():
    # "a b a b" has ab, ba, ab; four times "c d" has cd: 3 distinct of 7
    texts = ["a b a b", "c d", "c d", "c d", "c d"]
    found = distinct_2(texts)
    assert found.value == pytest.approx(3 / 7)
    # without the first: 1/4; without one of the others: 3/6. Mean 0.45, squares 0.04 + 4 * 0.0025 = 0.05,
    # error = sqrt(4/5 * 0.05) = 0.2, t(4) = 2.776445
    assert found.high - found.value == pytest.approx(0.2 * 2.776445, abs=1e-6)
    assert distinct_2(["one", "", "a b", "a b", "a b", "a b"]).value is None


def test_flips_name_the_items_behind_them():
    # 6 lost, 1 gained: p = 2 * (1 + 7)/2^7 = 0.125
    before = of([1, 1, 1, 1, 1, 0.5, 0, 1, 0])
    after = of([0, 0, 0, 0, 0, 0.0, 1, 1, 0])
    found = flips(before, after)
    assert found.lost == ("i000", "i001", "i002", "i003", "i004", "i005")
    assert found.gained == ("i006",)
    assert (found.n, found.p) == (9, pytest.approx(0.125))
    assert flips(before, before).p == 1
    with pytest.raises(ValueError, match="got 9 and 2, 2 shared"):
        flips(before, of([1, 1]))


def test_a_shifted_prior_shows_per_answer():
    margins = of([1] * 10 + [-1] * 10)
    answers = {name: "Yes" if k < 10 else "No" for k, name in enumerate(margins.items)}
    assert accuracy(margins).value == 0.5
    parts = by_answer(margins, answers)
    assert list(parts) == ["No", "Yes"]
    assert (parts["No"].value, parts["Yes"].value) == (0, 1)
    assert by_answer(margins, {name: name for name in margins.items}) == {}


@pytest.mark.parametrize("compare", [tax, step_tax, bits_tax, change, accuracy_change, accuracy_relative, kl_per_token])
def test_unlike_items_are_not_compared(compare):
    found = compare(of([1] * 10), of([1] * 9))
    assert found.value is None
    assert found.method == "the same items expected on both sides, got 10 and 9, 9 shared"


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=5, max_size=40), st.randoms())
def test_item_order_and_swapped_roles(rows, random):
    one = [item(f"{k:02}", float(a)) for k, (a, _) in enumerate(rows)]
    two = [item(f"{k:02}", float(b)) for k, (_, b) in enumerate(rows)]
    forth = accuracy_change(series(one), series(two))
    back = accuracy_change(series(two), series(one))
    random.shuffle(one)
    random.shuffle(two)
    assert accuracy_change(series(one), series(two)) == forth
    assert forth[:3] == pytest.approx((-back.value, -back.high, -back.low))
    seen, reverse = flips(hits(series(one)), hits(series(two))), flips(hits(series(two)), hits(series(one)))
    assert (seen.lost, seen.gained, seen.p) == (reverse.gained, reverse.lost, reverse.p)


# R of three rounds on versions v1, v2, v3, of 20 pairs each:
#           v1     v2     v3
# base    10/20   8/20  10/20
# round 1 16/20  11/20  10/20
# round 2 17/20  15/20   9/20
# round 3 12/20  14/20  18/20
R = {"base": (10, 8, 10), "p1": (16, 11, 10), "p2": (17, 15, 9), "p3": (12, 14, 18)}
VERSIONS = ("v1", "v2", "v3")


def matrix(rows=R, policies=("base", "p1", "p2", "p3")):
    margins = {p: {v: right(c) for v, c in zip(VERSIONS, row, strict=True)} for p, row in rows.items()}
    return retention_matrix(margins, policies=policies, versions=VERSIONS)


def test_the_matrix_holds_every_cell():
    found = matrix()
    assert found.values == pytest.approx(np.array(list(R.values())) / 20)
    assert found.cell(0, 2) == proportion(8, 20)
    assert found.cell(1, 3).value == 0.5


@pytest.mark.parametrize(
    ("metric", "value", "convention"),
    [
        # of 20 pairs v1 goes 16 -> 12 and v2 15 -> 14: -5/20 over 2
        (backward_transfer, -0.125, "T-1"),
        # before its own round v2 goes 8 -> 11 and v3 10 -> 9: 2/20 over 2
        (forward_transfer, 0.05, "T-1"),
        # v1: best of rounds 1, 2 is 17: 5 lost; v2: best of 11, 15: 1 lost; 6/20/2
        (forgetting, 0.15, "T-1"),
        # the last row has 44 of 60
        (last, 44 / 60, "T:"),
        # after each round what was trained by then: 16 of 20, 32 of 40, 44 of 60
        (average_performance, (16 / 20 + 32 / 40 + 44 / 60) / 3, "T:"),
    ],
)
def test_averages_name_their_convention(metric, value, convention):
    found = metric(matrix())
    assert found.value.value == pytest.approx(value)
    assert found.value.low < value < found.value.high
    assert convention in found.convention


def test_forgetting_looks_at_the_rounds_between_only():
    # v1: best of rounds 1, 2 is 16 (the base's 19 and the last 18 do not count): 2 gained; v2: 15 - 14 = 1 lost
    rows = {"base": (19, 8, 10), "p1": (16, 11, 10), "p2": (14, 15, 9), "p3": (18, 14, 18)}
    assert forgetting(matrix(rows)).value.value == pytest.approx((-2 + 1) / 20 / 2)


def test_what_was_replaced_counts_neither_as_forgotten_nor_in_the_end():
    left = matrix()._replace(replaced=frozenset({1}))
    # v2 alone: 15 -> 14 of 20; at the end 14 and 18 of 20
    assert backward_transfer(left).value.value == pytest.approx(-1 / 20)
    assert forgetting(left).value.value == pytest.approx(1 / 20)
    assert last(left).value.value == pytest.approx(32 / 40)
    assert forward_transfer(left) == forward_transfer(matrix())
    assert average_performance(left) == average_performance(matrix())
    assert last(left).convention.endswith("; replaced versions left out")
    assert backward_transfer(matrix()._replace(replaced=frozenset({1, 2}))).value.value is None


def test_backward_transfer_is_as_wide_as_its_parts():
    # independent versions: distances to the bounds add in quadrature, halved
    parts = [paired_shares(*(hits(right(c)).values for c in pair)) for pair in ((12, 16), (14, 15))]
    found = backward_transfer(matrix()).value
    assert found.high - found.value == pytest.approx(math.hypot(*(p.high - p.value for p in parts)) / 2)
    assert found.n == 40


def test_transfer_covers_the_truth():
    # v1 goes from 0.8 to 0.7 and v2 from 0.75 to 0.8 with 80 pairs each: BWT = (-0.1 + 0.05)/2
    def one(seed):
        rng = np.random.default_rng(seed)

        def drawn(chance):
            return of(np.where(rng.random(80) < chance, 1.0, -1.0))

        rows = {"base": (0.5, 0.5, 0.5), "p1": (0.8, 0.5, 0.5), "p2": (0.8, 0.75, 0.5), "p3": (0.7, 0.8, 0.9)}
        margins = {p: {v: drawn(c) for v, c in zip(VERSIONS, row, strict=True)} for p, row in rows.items()}
        return backward_transfer(retention_matrix(margins, policies=list(rows), versions=VERSIONS)).value

    found = [one(seed) for seed in range(400)]
    assert 0.92 <= np.mean([e.low <= -0.025 <= e.high for e in found]) <= 0.98


def test_missing_cells_and_first_rounds_give_no_average():
    without = {p: {"v1": right(c[0]), "v3": right(c[2])} for p, c in R.items()}
    hole = retention_matrix(without, policies=tuple(R), versions=VERSIONS)
    assert np.isnan(hole.values[:, 1]).all()
    assert "version 2 was not measured" in backward_transfer(hole).value.method
    assert last(hole).value.value is None
    first = matrix(policies=("base", "p1"))
    assert backward_transfer(first).value.method == "1 rounds, at least 2 needed"
    assert last(first).value.value == pytest.approx(0.8)
    assert last(matrix(policies=("base",))).value.value is None
    with pytest.raises(ValueError, match="got 5 policies for 3 versions"):
        matrix(policies=("base", "p1", "p2", "p3", "p4"))


def test_quartiles_tell_who_paid():
    # eight pairs, margins 1 to 8; the two least confident turn, the others gain 1
    before = of([1, 2, 3, 4, 5, 6, 7, 8] * 3)
    after = of([-1 if value <= 2 else value + 1 for value in before.values])
    found = by_quartile(before, after)
    assert [one.before.value for one in found] == [1.5, 3.5, 5.5, 7.5]
    assert [one.lost.value for one in found] == [1, 0, 0, 0]
    assert [one.change.value for one in found] == [-2.5, 1, 1, 1]
    with pytest.raises(ValueError, match="same items"):
        by_quartile(before, of([1.0] * 5))


def test_quarters_lose_together_what_was_lost_of_all():
    # of six pairs of each margin those at 0, half right, turn wrong, and those at 2 become as likely as not
    before = of([0, 1, 2, 3] * 6)
    after = of([{0: -1, 1: 1, 2: 0, 3: 3}[int(value)] for value in before.values])
    lost = [round(one.lost.value * one.lost.n) for one in by_quartile(before, after)]
    assert lost == [6, 0, 6, 0]
    assert sum(lost) == len(flips(hits(before), hits(after)).lost)


def test_counts_of_what_turned_come_from_shares_too():
    lost, gained = (proportion(count, 20) for count in (2, 0))
    assert turned_of(lost, gained) == (2, 0, 20, 0.5)  # 2 x 0.5^2
    assert turned_of(lost, not_enough(4, "too few")) is None


def test_the_lowest_quarter_holds_what_was_surely_wrong():
    # the first is the furthest below 0, not the nearest to it; every margin is halved
    before = of([-8, -8, -0.1, 0.1, 1, 1, 8, 8] * 3)
    found = by_quartile(before, of([value / 2 for value in before.values]))
    assert [one.before.value for one in found] == [-8, pytest.approx(0), 1, 8]
    assert [one.change.value for one in found] == [4, pytest.approx(0), -0.5, -4]
