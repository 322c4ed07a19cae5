"""Prequential accuracy and the detector of changes."""

import math
import random

import pytest

from workbench.drift.prequential import LEAST_FALL, RUN, accuracy, changed
from workbench.drift.uncertainty import Estimate, not_enough, proportion


def known(share):
    """An accuracy whose interval has no width."""
    return Estimate(share, share, share, 100_000, "known")


def drawn(rng, share, count):
    return [rng.random() < share for _ in range(count)]


def test_the_sum_is_worked_out_by_hand():
    # Expected 0.9, looked for 0.75: a wrong judgement adds log(0.25 / 0.1), a right one log(0.75 / 0.9).
    wrong, right = math.log(0.25 / 0.1), math.log(0.75 / 0.9)
    needed = math.ceil(math.log(RUN) / wrong)
    assert (needed, round(wrong, 3), round(right, 3)) == (8, 0.916, -0.182)
    found = changed([True] * 20 + [False] * needed, known(0.9))
    assert (found.at, found.noticed) == (20, 20 + needed - 1)
    assert changed([True] * 20 + [False] * (needed - 1), known(0.9)).kind == "none"


def test_wrong_ones_all_the_way_are_contrary_and_some_more_of_them_are_weaker():
    assert changed([False] * 30, known(0.9)).kind == "contrary"
    mixed = changed([i % 3 > 0 for i in range(200)], known(0.95))  # two of three right from the start
    assert mixed.kind == "weaker"
    assert "update" in changed([False] * 30, known(0.9)).proposal
    assert "round" in mixed.proposal
    assert changed([True] * 30, known(0.9)).proposal == ""


def test_contrary_counts_all_judgements_since_the_change_and_all_places_it_might_have_been():
    # The alarm comes at the eighth wrong one (above); of 100 judgements 12 in a row are 2^-12 * 100 = 0.0244 < 0.025.
    assert changed([True] * 88 + [False] * 12, known(0.9)).kind == "contrary"
    found = changed([True] * 89 + [False] * 11, known(0.9))  # 0.049
    assert (found.kind, found.at, found.after.n) == ("weaker", 89, 11)
    # What comes after the alarm counts, too: 12 wrong, then 12 right.
    assert changed([True] * 76 + [False] * 12 + [True] * 12, known(0.9)).kind == "weaker"


def test_what_the_policy_was_hardly_taught_cannot_be_contradicted():
    hardly = proportion(22, 38)
    assert hardly.value > 1 / 2 > hardly.low
    assert changed([False] * 60, hardly).kind == "weaker"


def test_false_alarms_are_as_rare_as_promised():
    rng, runs = random.Random(0), []
    for _ in range(40):
        noticed = changed(drawn(rng, 0.85, 8 * RUN), known(0.85)).noticed
        runs.append(8 * RUN if noticed is None else noticed)
    # Longer than promised on average; runs that saw no alarm only make the true mean larger.
    assert sum(runs) / len(runs) > RUN


def test_false_alarms_are_as_rare_where_few_held_out_judgements_say_too_much():
    # The most of 38 judgements whose interval still covers a true accuracy of 0.7 is 32: 0.84 [0.696, 0.93].
    covers = [k for k in range(20, 39) if proportion(k, 38).low <= 0.7]
    assert covers[-1] == 32
    rng, runs = random.Random(0), []
    for _ in range(40):
        noticed = changed(drawn(rng, 0.7, 8 * RUN), proportion(32, 38)).noticed
        runs.append(8 * RUN if noticed is None else noticed)
    assert sum(runs) / len(runs) > RUN


def test_a_turn_without_a_change_seldom_has_an_alarm_whatever_its_expectation_was_estimated_to_be():
    rng, alarms, turns = random.Random(2), 0, 400
    for _ in range(turns):
        expected = proportion(sum(drawn(rng, 0.7, 38)), 38)
        alarms += changed(drawn(rng, 0.7, 120), expected).kind != "none"
    assert alarms / turns <= 0.025


def test_people_who_want_either_as_often_are_seldom_said_to_want_the_opposite():
    rng, turns = random.Random(3), 400
    kinds = [changed(drawn(rng, 0.5, 120), proportion(34, 38)).kind for _ in range(turns)]
    assert kinds.count("contrary") / turns <= 0.025
    assert kinds.count("weaker") / turns > 0.8


def test_a_fall_of_the_size_looked_for_is_noticed_within_a_hundred_judgements():
    rng, delays = random.Random(1), []
    for _ in range(40):
        before, after = drawn(rng, 0.85, 50), drawn(rng, 0.85 - 2 * LEAST_FALL, 400)
        found = changed(before + after, known(0.85))
        delays.append((found.noticed if found.noticed is not None else 450) - 50)
    assert sorted(delays)[20] < 100


def test_nothing_judged_says_so():
    found = changed([], known(0.8))
    assert (found.kind, found.after.value, found.after.n) == ("none", None, 0)
    assert accuracy([True, True, False, True] * 5).value == 0.75


@pytest.mark.parametrize("expected", [not_enough(3, "few"), known(LEAST_FALL)])
def test_without_anything_to_fall_from_nothing_is_looked_for(expected):
    assert changed([False] * 60, expected).kind == "none"
