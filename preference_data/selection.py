"""What to ask next: which of many comparisons are worth a person's time, and the chance each had of being chosen.

Whatever the strategy, a share of every draw is uniform, so that numbers about all comparisons can still be estimated:
weight what was chosen by one over its propensity (Horvitz and Thompson, 1952).
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

LEAST_RANDOM = 0.2
"""Smallest share of a draw that is uniform."""

_ROUNDING = 1e-9


class Chosen(NamedTuple):
    """A comparison that was drawn, and the chance it had."""

    key: str
    propensity: float


def inclusion(scores: Mapping[str, float], count: int, *, random_share: float = LEAST_RANDOM) -> dict[str, float]:
    """The chance of each comparison to be among `count` drawn ones.

    `random_share` of the draws is spread evenly, the rest in proportion to the scores; nobody's chance exceeds 1, and
    what is cut off there goes to the others.

    Args:
        scores: how much each comparison is worth, 0 or more; all alike where they sum to 0.
        count: how many are to be drawn; all where there are no more.
        random_share: from `LEAST_RANDOM` to 1.

    Returns:
        Chances in (0, 1] that sum to `count`, or to the number of comparisons if that is smaller.

    Raises:
        ValueError: the share is out of bounds, the count is negative, or a score is negative or not a number.
    """
    if not LEAST_RANDOM <= random_share <= 1:
        raise ValueError(f"random_share: got {random_share}; expected a share from {LEAST_RANDOM} to 1")
    if count < 0:
        raise ValueError(f"count: got {count}; expected 0 or more")
    keys = sorted(scores)
    values = np.array([scores[key] for key in keys], dtype=float)
    if not np.all(np.isfinite(values)) or np.any(values < 0):
        wrong = next(key for key in keys if not (math.isfinite(scores[key]) and scores[key] >= 0))
        raise ValueError(f"score of {wrong}: got {scores[wrong]}; expected a number of 0 or more")
    if count >= len(keys):
        return dict.fromkeys(keys, 1.0)
    even = np.full(len(keys), 1 / len(keys))
    worth = values / values.sum() if values.sum() > 0 else even
    share = random_share * even + (1 - random_share) * worth
    return dict(zip(keys, _capped(share, count).tolist(), strict=True))


def choose(
    scores: Mapping[str, float], count: int, *, random_share: float = LEAST_RANDOM, seed: int = 0
) -> list[Chosen]:
    """Draw comparisons without replacement, each with exactly the chance that `inclusion` gives it.

    Systematic sampling in an order that the seed shuffles: a comb of equal steps falls on the running sum of the
    chances (Madow, 1949).

    Args:
        scores: how much each comparison is worth.
        count: how many to draw.
        random_share: share of the draws that ignores the scores.
        seed: the same seed draws the same.
    """
    chances = inclusion(scores, count, random_share=random_share)
    generator = np.random.default_rng(seed)
    ordered = sorted(chances)
    keys = [ordered[int(k)] for k in generator.permutation(len(ordered))]
    edges = np.cumsum([chances[key] for key in keys])
    teeth = generator.random() + np.arange(min(count, len(keys)))
    hit = np.searchsorted(edges, teeth * (1 - _ROUNDING), side="right")
    return [Chosen(keys[k], chances[keys[k]]) for k in hit.tolist()]


def _capped(
    share: "np.ndarray[tuple[int], np.dtype[np.float64]]", count: int
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Shares times the count, none above 1; what is cut off is spread over the rest in proportion."""
    certain = np.zeros(len(share), dtype=bool)
    while True:
        rest = count - certain.sum()
        chances = np.where(certain, 1.0, share * rest / share[~certain].sum())
        over = (chances >= 1) & ~certain
        if not over.any():
            return chances
        certain |= over
