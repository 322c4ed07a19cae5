"""Means over seeds and items at once: training is repeated with other seeds, every seed is tested on the same items.

Both are samples, of all seeds and of all items, and a statement about a method is about both. With few seeds a
bootstrap that resamples them has too little width (three seeds: a third of the variance is missing); here the variance
is the sum of its crossed components and the interval a t with Satterthwaite's degrees of freedom.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from workbench.drift.uncertainty import FEWEST_GROUPS, LEVEL, Estimate, Floats, not_enough


class Components(NamedTuple):
    """Variances of the mean.

    Attributes:
        seeds, items: each with its share of what only both together explain.
        both: that share, which the two have twice.
        freedom: degrees of freedom of seeds and of items.
    """

    seeds: float
    items: float
    both: float
    freedom: tuple[int, int]


def crossed(blocks: Sequence[Floats]) -> Estimate:
    """Mean over blocks of the means over seeds and items.

    The variance of a mean over S seeds and I items of one block is s_S^2 / S + s_I^2 / I - s_SI^2 / (S I): mean squares of
    seeds and items, less that of their interaction, which is in both (Searle, Casella, McCulloch 1992, 4.3). Blocks have
    items of their own and share their seeds.

    Args:
        blocks: one per task, each of shape (seeds, items); a seed is in the same row everywhere.

    Returns:
        The estimate; n counts items. With one seed the interval is about items alone, and says so.
    """
    n = sum(block.shape[1] for block in blocks)
    if not blocks or min(block.shape[1] for block in blocks) < FEWEST_GROUPS:
        return not_enough(n, f"fewer than {FEWEST_GROUPS} items")
    value = float(np.mean([block.mean() for block in blocks]))
    parts = components(blocks)
    seeds = blocks[0].shape[0]
    if seeds == 1:
        variance, freedom, method = parts.items, float(parts.freedom[1]), "t over items, one seed"
    else:
        variance = max(parts.seeds + parts.items - parts.both, parts.seeds, parts.items)
        shares = zip((parts.seeds, parts.items), parts.freedom, strict=True)
        below = sum(v**2 / df for v, df in shares)
        freedom = variance**2 / below if below else math.inf
        method = f"t over {seeds} seeds and items, crossed"
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(variance)
    if not variance:  # no item says anything else: as wide as a share that was never seen may be
        half, method = 1 - ((1 - LEVEL) / 2) ** (1 / n), f"{method}; none differs"
    return Estimate(value, value - half, value + half, n, method)


def components(blocks: Sequence[Floats]) -> Components:
    """Variances of the mean over blocks of equal weight."""
    seeds = blocks[0].shape[0]
    of_seeds = np.mean([block.mean(axis=1) for block in blocks], axis=0)
    by_seed = float(of_seeds.var(ddof=1)) / seeds if seeds > 1 else 0.0
    by_item = both = 0.0
    for block in blocks:
        items = block.shape[1]
        of_items = block.mean(axis=0)
        by_item += float(of_items.var(ddof=1)) / items
        if seeds > 1:
            rest = block - of_items - block.mean(axis=1, keepdims=True) + block.mean()
            both += float((rest**2).sum()) / ((seeds - 1) * (items - 1)) / (seeds * items)
    count = len(blocks)
    freedom = (max(seeds - 1, 1), sum(block.shape[1] - 1 for block in blocks))
    return Components(by_seed, by_item / count**2, both / count**2, freedom)
