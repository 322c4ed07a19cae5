"""Prequential accuracy and the detector of changes."""

import math
import random

import pytest

from workbench.drift.prequential import LEAST_FALL, RUN, accuracy, changed


def test_the_sum_is_worked_out_by_hand():
    # Expected 0.9, looked for 0.75: a wrong judgement adds log(0.25 / 0.1), a right one log(0.75 / 0.9).
    wrong, right = math.log(0.25 / 0.1), math.log(0.75 / 0.9)
    needed = math.ceil(math.log(RUN) / wrong)
    assert (needed, round(wrong, 3), round(right, 3)) == (8, 0.916, -0.182)
    found = changed([True] * 20 + [False] * needed, 0.9)
    assert (found.at, found.noticed) == (20, 20 + needed - 1)
    assert changed([True] * 20 + [False] * (needed - 1), 0.9).kind == "none"


def test_wrong_ones_all_the_way_are_contrary_and_some_more_of_them_are_weaker():
    assert changed([False] * 30, 0.9).kind == "contrary"
    mixed = changed([i % 3 > 0 for i in range(200)], 0.95)  # two of three right from the start
    assert mixed.kind == "weaker"
    assert "update" in changed([False] * 30, 0.9).proposal
    assert "round" in mixed.proposal
    assert changed([True] * 30, 0.9).proposal == ""


def test_false_alarms_are_as_rare_as_promised():
    rng, runs = random.Random(0), []
    for _ in range(40):
        seen = [rng.random() < 0.85 for _ in range(8 * RUN)]
        noticed = changed(seen, 0.85).noticed
        runs.append(8 * RUN if noticed is None else noticed)
    # Longer than promised on average; runs that saw no alarm only make the true mean larger.
    assert sum(runs) / len(runs) > RUN


def test_a_fall_of_the_size_looked_for_is_noticed_within_a_hundred_judgements():
    rng, delays = random.Random(1), []
    for _ in range(40):
        before = [rng.random() < 0.85 for _ in range(50)]
        after = [rng.random() < 0.85 - 2 * LEAST_FALL for _ in range(400)]
        found = changed(before + after, 0.85)
        delays.append((found.noticed if found.noticed is not None else 450) - 50)
    assert sorted(delays)[20] < 100


def test_nothing_judged_says_so():
    found = changed([], 0.8)
    assert (found.kind, found.after.value, found.after.n) == ("none", None, 0)
    assert accuracy([True, True, False, True] * 5).value == 0.75


def test_no_share_is_refused():
    with pytest.raises(ValueError, match="expected a share"):
        changed([True], 1.2)
