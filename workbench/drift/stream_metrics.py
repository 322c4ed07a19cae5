"""What a method does to a stream of tasks, over seeds and items: the metrics of `retention`, for several lineages.

Conventions are those of `drift.retention`: R[t, i] is the accuracy after round t (0 the base) on task i (from 1).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from workbench.drift.crossed import crossed
from workbench.drift.uncertainty import Estimate, Floats


class Runs(NamedTuple):
    """One method on one stream.

    Attributes:
        hits: by task, shape (seeds, policies, prompts): 1 right, 0 wrong, between where a prompt has several pairs;
            policies are the base, then the child of each round.
        replaced: tasks (from 1) whose preference a later one replaced: they count neither as forgotten nor in the end.
    """

    hits: tuple[Floats, ...]
    replaced: frozenset[int] = frozenset()

    @property
    def rounds(self) -> int:
        """T."""
        return self.hits[0].shape[1] - 1

    def change(self, task: int, after: int, before: int) -> Floats:
        """R[after, task] - R[before, task] of each seed and prompt."""
        rows = self.hits[task - 1]
        return rows[:, after] - rows[:, before]


def best_before(runs: Runs, task: int) -> int:
    """The round l < T whose R[l, task] is highest, over all seeds."""
    means = runs.hits[task - 1].mean(axis=(0, 2))
    return 1 + int(np.argmax(means[1 : runs.rounds]))


def forgotten(runs: Runs, best: Sequence[int] | None = None) -> list[Floats]:
    """By task i < T: R[l, i] - R[T, i] of each seed and prompt, l the best round before the last.

    Args:
        runs: of one method.
        best: l of each task; the method's own where None.
    """
    best = best or [best_before(runs, i) for i in range(1, runs.rounds)]
    return [-runs.change(i, runs.rounds, each) for i, each in enumerate(best, 1) if i not in runs.replaced]


def transferred_back(runs: Runs) -> list[Floats]:
    """By task i < T: R[T, i] - R[i, i]."""
    return [runs.change(i, runs.rounds, i) for i in range(1, runs.rounds) if i not in runs.replaced]


def transferred_ahead(runs: Runs) -> list[Floats]:
    """By task i > 1: R[i-1, i] - R[0, i]."""
    return [runs.change(i, i - 1, 0) for i in range(2, runs.rounds + 1)]


def learned(runs: Runs) -> list[Floats]:
    """By task: R[i, i], what a round taught by its end."""
    return [rows[:, i] for i, rows in enumerate(runs.hits, 1)]


def at_the_end(runs: Runs) -> list[Floats]:
    """By task: R[T, i]."""
    return [rows[:, -1] for i, rows in enumerate(runs.hits, 1) if i not in runs.replaced]


METRICS = {
    "Last": (at_the_end, "Last over T: mean over i <= T of R[T,i]"),
    "learned": (learned, "mean over i <= T of R[i,i]"),
    "BWT": (transferred_back, "BWT over T-1: mean over i < T of R[T,i] - R[i,i]"),
    "forgetting": (forgotten, "forgetting over T-1: mean over i < T of max over 1 <= l < T of R[l,i], minus R[T,i]"),
    "FWT": (transferred_ahead, "FWT over T-1: mean over i = 2..T of R[i-1,i] - R[0,i], R[0] the base"),
}
"""Blocks of a metric, and its convention."""


def measured(runs: Runs) -> Mapping[str, Estimate]:
    """Every metric of one method."""
    return {name: crossed(blocks(runs)) for name, (blocks, _) in METRICS.items()}


def largest_forgetting(runs: Runs) -> Estimate:
    """The task forgotten most, chosen from the data, so that it is biased upwards."""
    each = [crossed([block]) for block in forgotten(runs)]
    if not each:
        return crossed([])
    return max(each, key=lambda one: -np.inf if one.value is None else one.value)


def difference(metric: str, first: Runs, second: Runs, *, times: float = 1.0) -> Estimate:
    """A metric of the first less `times` that of the second, paired by seed and prompt."""
    blocks = METRICS[metric][0]
    return crossed([a - times * b for a, b in zip(blocks(first), blocks(second), strict=True)])
