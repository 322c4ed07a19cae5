"""Estimates over seeds and items: by hand, and with the coverage they promise."""

import numpy as np
import pytest
from scipy import stats

from workbench.drift.crossed import components, crossed
from workbench.drift.stream_metrics import Runs, difference, forgotten, largest_forgetting, measured


def test_components_by_hand():
    # two seeds, three items; item means 1, 2, 3 and no interaction: seeds differ by 2
    block = np.array([[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]])
    found = components([block])
    assert found.seeds == pytest.approx(2 / 2)  # variance of 1 and 3 is 2, over 2 seeds
    assert found.items == pytest.approx(1 / 3)  # variance of 1, 2, 3 is 1, over 3 items
    assert found.both == pytest.approx(0)
    assert found.freedom == (1, 2)


def test_the_mean_gives_every_block_one_vote():
    found = crossed([np.zeros((2, 5)), np.ones((2, 50))])
    assert (found.value, found.n) == (0.5, 55)


def test_one_seed_speaks_of_items_alone():
    block = np.array([[0.0, 1.0, 1.0, 0.0, 1.0]])
    found = crossed([block])
    half = stats.t.ppf(0.975, 4) * np.sqrt(0.3 / 5)
    assert (found.low, found.high) == pytest.approx((0.6 - half, 0.6 + half))
    assert "one seed" in found.method


def test_too_few_items_have_no_estimate():
    assert crossed([np.zeros((3, 4))]).value is None


def planted(rng, seeds, items, rounds=4, *, lost=0.08):
    """Hits of a stream whose forgetting is known: chances 0.5, then 0.9 when learned, then `lost` less per round.

    Items differ in difficulty and seeds in luck, both together too.
    """
    tasks = []
    for i in range(1, rounds + 1):
        rows = np.empty((seeds, rounds + 1, items))
        easy, luck = rng.normal(0, 0.8, items), rng.normal(0, 0.25, (seeds, rounds + 1, 1))
        for t in range(rounds + 1):
            mean = 0.5 if t < i else 0.9 - lost * (t - i)
            logit = np.log(mean / (1 - mean)) + easy + luck[:, t] + rng.normal(0, 0.3, (seeds, items))
            rows[:, t] = rng.random((seeds, items)) < 1 / (1 + np.exp(-logit))
        tasks.append(rows)
    return Runs(tuple(tasks))


def truth(draws=400_000):
    """R[i, i] - R[T, i] averaged over the first three tasks, by simulation of the same logits."""
    rng = np.random.default_rng(1)
    noise = rng.normal(0, np.sqrt(0.8**2 + 0.25**2 + 0.3**2), draws)

    def mean(chance):
        return float((1 / (1 + np.exp(-(np.log(chance / (1 - chance)) + noise)))).mean())

    return np.mean([mean(0.9) - mean(0.9 - 0.08 * (4 - i)) for i in (1, 2, 3)])


@pytest.mark.parametrize(("seeds", "items"), [(3, 400), (5, 100)])
def test_intervals_of_planted_forgetting_cover_it_as_often_as_they_say(seeds, items):
    expected, covered = truth(), 0
    for number in range(1000):
        runs = planted(np.random.default_rng(number), seeds, items)
        found = crossed(forgotten(runs, best=[1, 2, 3]))
        covered += found.low <= expected <= found.high
    assert 0.93 <= covered / 1000 <= 0.97


@pytest.mark.parametrize("lost", [0.08, 0.0])
def test_forgetting_covers_as_it_says_with_its_best_round_chosen_from_the_same_data(lost):
    expected = truth() if lost else 0.0
    draws = [measured(planted(np.random.default_rng(number), 5, 100, lost=lost))["forgetting"] for number in range(300)]
    assert 0.92 <= np.mean([found.low <= expected <= found.high for found in draws]) <= 0.98


def test_over_many_rounds_forgetting_of_nothing_is_biased_and_a_difference_of_two_such_is_not():
    # A round's accuracy scatters by 0.018 here: 0.25 * 0.1 / sqrt(5) by luck, sqrt(0.1 / 500) by answers. The highest of m is
    # 0, 0.56, 0.85, ... 1.59 of that above the mean for m = 1, 2, 3, ... 11 rounds, 1.11 of it on average: 0.020.
    def runs(number):
        return planted(np.random.default_rng(number), 5, 100, rounds=12, lost=0)

    drawn = [(runs(number), runs(1000 + number)) for number in range(60)]
    alone = [measured(one)["forgetting"] for one, _ in drawn]
    assert np.mean([found.value for found in alone]) == pytest.approx(0.020, abs=0.003)
    assert np.mean([found.low <= 0 for found in alone]) < 0.7
    apart = [difference("forgetting", one, other) for one, other in drawn]
    assert np.mean([found.value for found in apart]) == pytest.approx(0, abs=0.003)
    assert np.mean([found.low <= 0 <= found.high for found in apart]) > 0.9


def test_metrics_of_a_small_stream_by_hand():
    # two seeds, five prompts, two rounds: task 1 learned fully, then one prompt in five lost by the second seed
    first = np.zeros((2, 3, 5))
    first[:, 1] = 1
    first[:, 2] = 1
    first[1, 2, 0] = 0
    second = np.zeros((2, 3, 5))
    second[:, 1, :2] = 1
    second[:, 2] = 1
    runs = Runs((first, second))
    found = {name: each.value for name, each in measured(runs).items()}
    assert found == pytest.approx({"Last": 0.95, "learned": 1.0, "BWT": -0.1, "forgetting": 0.1, "FWT": 0.4})
    assert largest_forgetting(runs).value == pytest.approx(0.1)
    assert difference("forgetting", runs, runs, times=0.5).value == pytest.approx(0.05)
    assert difference("Last", runs, runs).value == 0
