"""Methods compared at one KL to the base."""

import numpy as np
import pytest

from workbench.bench.matched import REFERENCES, At, at, common_kl, figures, table
from workbench.bench.methods_report import kl_of


def lineage(kl, right):
    """A stream of two tasks with ten prompts each: so many of the first are right at the end, all were after its round."""
    first, second = np.zeros((3, 10)), np.ones((3, 10))
    first[1], first[2, :right] = 1, 1
    found = {
        "tasks": ["a", "b"],
        "hits": [first.tolist(), second.tolist()],
        "kl_base": [[None, 0.1, kl - 0.1], [None, 0.1, kl + 0.1]],
    }
    return At(kl_of(found), found)


def test_what_is_read_off_lies_between_the_two_that_enclose_it():
    points = [lineage(0.8, 4), lineage(0.2, 10), lineage(0.4, 8)]
    assert [round(p.kl, 6) for p in points] == [0.8, 0.2, 0.4]
    found = at(points, 0.5)  # a quarter of the way from 0.4 (8 right) to 0.8 (4 right): 7
    assert np.mean(found["hits"][0][2]) == pytest.approx(0.7)
    assert found["enclosed"]
    assert np.mean(at(points, 0.4)["hits"][0][2]) == pytest.approx(0.8)


def test_where_nothing_encloses_it_the_nearest_is_taken_and_said():
    points = [lineage(0.2, 10), lineage(0.8, 4)]
    for kl, share in ((0.1, 1.0), (0.9, 0.4)):
        found = at(points, kl)
        assert np.mean(found["hits"][0][2]) == pytest.approx(share)
        assert not found["enclosed"]


def test_the_common_kl_is_the_median_of_the_middles():
    lineages = {
        "plain": [[lineage(0.1, 1), lineage(0.3, 1), lineage(0.9, 1)]],
        "base": [[lineage(0.2, 1), lineage(0.5, 1), lineage(0.6, 1)]],
    }
    assert common_kl(lineages) == pytest.approx(0.4)


def test_both_anchors_are_compared_with_the_better_single_one():
    right = {"plain": 5, "base": 7, "mix": 9, "replay": 8, "base-replay": 6, "mix-replay": 8}
    read = {m: [at([lineage(0.2, right[m]), lineage(0.4, right[m])], 0.3) for _ in range(3)] for m in REFERENCES}
    names = [figure.name for figure in figures("s", read)]
    assert ["less that of base," in names[0], "less that of replay," in names[2]] == [True, True]
    notes = [figure.note.split(" [")[0] for figure in figures("s", read)]
    # of twenty prompts 19 against 17 right at the end; of the first task's ten 1 against 3 lost; the others alike
    assert notes == ["0.10", "-0.20", "0.00", "0.00"]
    # Of a seed whose KLs all lie below, nothing is compared; of none that encloses it, no number is given.
    low = at([lineage(0.1, 10), lineage(0.2, 10)], 0.3)
    some = read | {"mix": [low, *read["mix"][1:]]}
    assert [figure.note.split("; ")[1] for figure in figures("s", some)[:2]] == ["2 of 3 seeds"] * 2
    assert [(f.value, f.verdict) for f in figures("s", read | {"mix": [low] * 3})[:2]] == [(None, "short")] * 2
    text = table(read, 0.3, 3)
    assert text.count("\n| ") == 1 + len(REFERENCES)
    assert "3 of 3" in text
