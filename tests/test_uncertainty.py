"""Intervals: hand-worked values, coverage by simulation, invariances."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.drift.power import smallest_mean_change, smallest_share_change
from workbench.drift.uncertainty import (
    Estimate,
    average,
    format_estimate,
    mean,
    not_enough,
    paired_difference,
    paired_shares,
    proportion,
    ratio,
    share,
)

SEEDS = 1000
N = 80


def coverage(truth, estimate_of_seed):
    """Share of seeds whose interval holds the truth."""
    estimates = [estimate_of_seed(np.random.default_rng(seed)) for seed in range(SEEDS)]
    return sum(e.low <= truth <= e.high for e in estimates) / SEEDS


def test_wilson_by_hand():
    # 60 of 84: p = 0.714286, z^2 = 3.841459, 1 + z^2/n = 1.045732
    # centre = (0.714286 + 3.841459/168) / 1.045732 = 0.737152 / 1.045732 = 0.704915
    # half: 1.959964/1.045732 times the root of 0.714286 * 0.285714/84 + 3.841459/(4 * 84^2)
    # which is 1.874251 * sqrt(0.00242954 + 0.00013611) = 1.874251 * 0.0506523 = 0.094935
    found = proportion(60, 84)
    assert found.value == pytest.approx(60 / 84)
    assert (found.low, found.high) == pytest.approx((0.609980, 0.799850), abs=2e-6)
    assert str(found) == "0.71 [0.61, 0.80] n=84"


def test_all_right_still_has_width():
    # p = 1: low = 1 / (1 + z^2/n) = 80 / 83.841459
    found = proportion(80, 80)
    assert (found.low, found.high) == pytest.approx((80 / 83.841459, 1.0))


def test_a_mean_by_hand():
    # 1..5: mean 3, sd sqrt(2.5), standard error sqrt(2.5/5) = 0.707107, t(4) = 2.776445: half = 1.963243
    found = mean([1, 2, 3, 4, 5])
    assert found[:4] == pytest.approx((3, 3 - 1.963243, 3 + 1.963243, 5))


def test_a_ratio_by_hand():
    # r = 15/25 = 0.6; residuals N - 0.6 D: 1-3, 2-3, 3-3, 4-3, 5-3 = -2..2, squares sum to 10
    # error = sqrt(5/4 * 10) / 25 = 3.535534 / 25 = 0.141421; t(4) = 2.776445: half = 0.392649
    found = ratio([1, 2, 3, 4, 5], [5, 5, 5, 5, 5])
    assert (found.value, found.low, found.high) == pytest.approx((0.6, 0.6 - 0.392649, 0.6 + 0.392649), abs=1e-6)


def test_paired_shares_by_hand():
    # 8 of 98 lost, 2 gained: d = -6/98. With one imagined flip each way: 3 gained, 9 lost of 100: d = -0.06,
    # variance = (0.12 - 0.0036)/100 = 0.001164, error 0.0341174, half = 0.066869
    before = np.array([1] * 8 + [0] * 2 + [1] * 88)
    after = np.array([0] * 8 + [1] * 2 + [1] * 88)
    found = paired_shares(after, before)
    assert found.value == pytest.approx(-6 / 98)
    assert (found.low, found.high) == pytest.approx((-0.06 - 0.066869, -0.06 + 0.066869), abs=1e-6)


def test_of_groups_without_a_flip_each_counts_once():
    # two imagined groups of mean size 100 that turned, beside five that did not: error sqrt(5/4 * 2 * 100^2) / 700,
    # t(4) = 2.776445: half = 0.627135
    found = paired_shares(np.ones(500), np.ones(500), np.repeat(list("abcde"), 100).tolist())
    assert (found.low, found.high) == pytest.approx((-0.627135, 0.627135), abs=1e-5)


def test_paired_shares_cover_with_groups_where_ignoring_them_does_not():
    groups = np.repeat(np.arange(10).astype(str), 8).tolist()

    def draw(rng):
        kind = np.repeat(rng.choice(3, 10, p=[0.5, 0.25, 0.25]), 8)
        kind = np.where(rng.random(N) < 0.3, rng.choice(3, N, p=[0.5, 0.25, 0.25]), kind)
        return (kind == 1).astype(float), (kind == 2).astype(float)

    assert coverage(0, lambda rng: paired_shares(*draw(rng), groups)) >= 0.93
    assert coverage(0, lambda rng: paired_shares(*draw(rng))) < 0.85


def test_equal_scores_leave_room_for_an_unseen_change():
    # sums +1 and -1 beside 80 zeros: error = sqrt(2)/82, half = 1.959964 * 0.0172465 = 0.033803
    found = paired_shares(np.ones(80), np.ones(80))
    assert (found.value, found.low, found.high) == pytest.approx((0, -0.033803, 0.033803), abs=1e-6)


def test_a_group_counts_once():
    scores, groups = [1, 0] * 10, [str(k) for k in range(20)]
    repeated, theirs = np.repeat(scores, 4), np.repeat(groups, 4).tolist()
    assert mean(repeated, theirs)[:3] == pytest.approx(mean(scores)[:3])
    # equal members of a group: the design effect is n/G * G/(G-1) = 4 * 20/19, so 80 items stand for 19
    assert share(repeated, theirs)[1:3] == pytest.approx(proportion(40, 80, design_effect=80 / 19)[1:3])
    # 20 groups all right are 20 trials
    assert share(np.ones(80), theirs)[1:3] == pytest.approx(proportion(20, 20)[1:3])


def test_average_by_hand():
    # distances below 0.3 and 0.4: sqrt(0.09 + 0.16)/2 = 0.25; above 0.6 and 0.8: 1.0/2
    found = average([Estimate(1, 0.7, 1.6, 10, "t"), Estimate(2, 1.6, 2.8, 20, "t")])
    assert found[:4] == pytest.approx((1.5, 1.25, 2.0, 30))
    assert average([Estimate(1, 0.7, 1.6, 10, "t"), not_enough(3, "why")]).value is None
    assert average([]).value is None


@pytest.mark.parametrize(
    "found",
    [
        proportion(3, 4),
        share([1, 0, 1, 1]),
        share([1, 0, 1, 1, 0, 1], list("aabbcc")),
        mean([1.0] * 20, ["a", "b"] * 10),
        mean([]),
        ratio([1, 2, 3, 4, 5], [0] * 5),
        paired_difference([1, 2, 3, math.nan, 5], [1] * 5),
        paired_shares([1, 0, 1, math.nan, 1], [1] * 5),
        share([1, 0, 1, math.nan, 1]),
        paired_shares([1] * 4, [0] * 4),
    ],
)
def test_too_little_is_not_zero(found):
    assert (found.value, found.low, found.high) == (None, None, None)
    assert str(found).startswith(f"not enough data (n={found.n}: ")


def test_scores_out_of_bounds_and_unequal_columns_are_refused():
    with pytest.raises(ValueError, match=r"between 0 and 1, got 0 to 3"):
        share([0, 1, 3, 1, 1])
    with pytest.raises(ValueError, match="use paired_difference"):
        paired_shares([0, 1, 3, 1, 1], [0] * 5)
    with pytest.raises(ValueError, match="got 5 and 6"):
        paired_difference([1] * 5, [1] * 6)
    with pytest.raises(ValueError, match="got 2 groups for 5 items"):
        mean([1] * 5, ["a", "b"])
    with pytest.raises(ValueError, match="between 0 and n, got 6 of 5"):
        proportion(6, 5)


def test_format():
    estimate = Estimate(0.125, -0.25, 0.5, 40, "t")
    assert format_estimate(estimate, digits=3, signed=True) == "+0.125 [-0.250, +0.500] n=40"
    assert format_estimate(Estimate(-0.001, -0.5, 0.5, 9, "t")) == "0.00 [-0.50, 0.50] n=9"


@pytest.mark.parametrize(
    "draw", [lambda rng: rng.normal(0.3, 1, N) - 0.3, lambda rng: rng.exponential(1, N) - 1], ids=["normal", "skewed"]
)
def test_paired_difference_covers(draw):
    def one(rng):
        before = rng.normal(0, 3, N)
        return paired_difference(before + draw(rng) + 0.3, before)

    assert 0.93 <= coverage(0.3, one) <= 0.97


def test_paired_difference_covers_with_groups_where_ignoring_them_does_not():
    groups = np.repeat(np.arange(20).astype(str), 4).tolist()

    def draw(rng):
        return np.repeat(rng.normal(0, 1, 20), 4) + rng.normal(0, 1, N)

    assert 0.93 <= coverage(0, lambda rng: paired_difference(draw(rng), np.zeros(N), groups)) <= 0.97
    assert coverage(0, lambda rng: paired_difference(draw(rng), np.zeros(N))) < 0.85


@pytest.mark.parametrize(("gained", "lost"), [(0.25, 0.05), (0.4, 0.1), (0.1, 0.05)])
def test_paired_shares_cover(gained, lost):
    def one(rng):
        kind = rng.choice(3, N, p=[1 - gained - lost, gained, lost])
        return paired_shares((kind == 1).astype(float), (kind == 2).astype(float))

    assert 0.93 <= coverage(gained - lost, one) <= 0.97


def test_rare_flips_are_covered_too():
    # 2 % each way of 80: a bootstrap holds the truth in 86 % of seeds
    def one(rng):
        kind = rng.choice(3, N, p=[0.96, 0.02, 0.02])
        return paired_shares((kind == 1).astype(float), (kind == 2).astype(float))

    assert coverage(0, one) >= 0.95


@pytest.mark.parametrize("chance", [0.5, 0.75, 0.95])
def test_shares_cover(chance):
    # a share of 80 takes few values, so that coverage moves in steps around 0.95
    assert 0.925 <= coverage(chance, lambda rng: proportion(int(rng.binomial(N, chance)), N)) <= 0.98


@given(st.lists(st.tuples(st.sampled_from([0, 0.5, 1]), st.sampled_from([0, 0.5, 1]), st.sampled_from("abcdefgh"))))
def test_swapping_roles_flips_the_sign(rows):
    after, before, groups = ([row[k] for row in rows] for k in range(3))
    for change in (paired_difference, paired_shares):
        forth, back = change(after, before, groups), change(before, after, groups)
        assert (forth.value is None) == (back.value is None)
        if forth.value is not None:
            assert (forth.value, forth.low, forth.high) == pytest.approx((-back.value, -back.high, -back.low))
            assert forth.low <= forth.value + 1e-12
            assert forth.value - 1e-12 <= forth.high


@given(st.data())
def test_order_of_items_does_not_matter(data):
    size = st.integers(5, 30)
    n = data.draw(size)
    values = data.draw(st.lists(st.floats(-1e3, 1e3), min_size=n, max_size=n))
    groups = data.draw(st.lists(st.sampled_from("abcdefghij"), min_size=n, max_size=n))
    order = data.draw(st.permutations(range(n)))
    first, second = mean(values, groups), mean([values[k] for k in order], [groups[k] for k in order])
    assert first.n == second.n
    if first.value is None:
        assert second.value is None
    else:
        assert first[:3] == pytest.approx(second[:3], rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(("win_rate", "votes"), [(0.60, 195), (0.55, 785), (0.53, 2180), (0.52, 4900)])
def test_power_agrees_with_published_vote_counts(win_rate, votes):
    # a decided vote is a pair that always flips: change = 2 * win rate - 1
    assert smallest_share_change(votes, discordant=1) == pytest.approx(2 * win_rate - 1, rel=0.005)


def test_power_of_a_share_by_simulation():
    # the change said to show at n = 320 with 20 % flips is found in 80 % of draws
    change = smallest_share_change(320, discordant=0.2)
    rng = np.random.default_rng(7)
    lost = rng.multinomial(320, [0.8, (0.2 - change) / 2, (0.2 + change) / 2], size=4000)
    z = (lost[:, 2] - lost[:, 1]) / np.sqrt(lost[:, 1] + lost[:, 2])
    assert 0.77 <= np.mean(np.abs(z) > 1.959964) <= 0.83


def test_power_of_a_mean_by_hand():
    # (1.959964 + 0.841621) * 2 / sqrt(100) = 0.560317
    assert smallest_mean_change(100, 2) == pytest.approx(0.560317, abs=1e-6)
    assert smallest_mean_change(0, 2) is None


def test_no_change_can_be_shown_by_too_few():
    # 19 items, all 20 % flips one way: 0.2 * sqrt(19) = 0.872 < 1.96 * sqrt(0.2) = 0.877 + 0.84 * sqrt(0.16)
    assert smallest_share_change(19, discordant=0.2) is None
    assert smallest_share_change(0) is None
    with pytest.raises(ValueError, match="0 < discordant <= 1 expected"):
        smallest_share_change(80, discordant=0)
