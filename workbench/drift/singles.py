"""How well a policy tells good single answers from bad ones: the area under the ROC curve (AUC) of its implicit reward.

That reward is log p minus the base's, up to beta (Rafailov et al., arXiv 2305.18290), so that what the base finds likely anyway,
as short answers, counts for nothing. The AUC is the share of couples of a good and a bad answer whose good one has the higher
reward, a tie half; 0.5 is chance, and a shift of all rewards changes nothing.

Intervals are t on groups of placements (DeLong et al. 1988, doi:10.2307/2531595; in groups Obuchowski 1997, doi:10.2307/2533958),
with one answer of each kind imagined at each end, as Bonett and Price have it: without them perfect order would have no width.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from workbench.drift.metrics import Series
from workbench.drift.uncertainty import FEWEST_GROUPS, LEVEL, Estimate, Floats, not_enough


class Sides(NamedTuple):
    """Log-probs of good and of bad answers under one policy, nats."""

    good: Series
    bad: Series


def auc(own: Sides, base: Sides) -> Estimate:
    """AUC of the reward of a policy, from 0 to 1."""
    return _unlike(own, base) or _estimate(own, _placements(own, base), (0.0, 1.0))


def auc_change(after: Sides, before: Sides, base: Sides) -> Estimate:
    """AUC after minus AUC before, on the same answers; positive means gained."""
    if reason := _unlike(after, base) or _unlike(before, base):
        return reason
    moved = tuple(new - old for new, old in zip(_placements(after, base), _placements(before, base), strict=True))
    return _estimate(after, (moved[0], moved[1]), (-1.0, 1.0))


def _placements(own: Sides, base: Sides) -> tuple[Floats, Floats]:
    """Of each good answer the share of bad ones it is above, and of each bad one the share of good ones that are above it."""
    good, bad = (mine.values - theirs.values for mine, theirs in zip(own, base, strict=True))
    return _above(good, bad), 1 - _above(bad, good)


def _above(values: Floats, others: Floats) -> Floats:
    """Of each value the share of others that it is above, those equal to it half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / (2 * len(others))


def _estimate(own: Sides, placements: tuple[Floats, Floats], ends: tuple[float, float]) -> Estimate:
    """The mean placement; it is the same of both kinds."""
    groups = np.unique(np.array([*own.good.groups, *own.bad.groups]), return_inverse=True)[1]
    value, n = float(placements[0].mean()), len(groups)
    count = int(groups.max()) + 1
    if count < FEWEST_GROUPS:
        return not_enough(n, f"{count} independent groups, at least {FEWEST_GROUPS} needed")
    parts = np.concatenate([(each - value) / (len(each) + len(ends)) for each in placements])
    imagined = [(end - value) / (len(each) + len(ends)) for each in placements for end in ends]
    squares = float((np.bincount(groups, weights=parts) ** 2).sum()) + sum(one**2 for one in imagined)
    error = math.sqrt(count / (count - 1) * squares)
    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * error
    return Estimate(value, max(ends[0], value - half), min(ends[1], value + half), n, f"AUC, t on {count} groups")


def _unlike(first: Sides, second: Sides) -> Estimate | None:
    """Why no AUC can be had of the two, or None where one can."""
    for side, mine, theirs in zip(("good", "bad"), first, second, strict=True):
        if mine.items != theirs.items:
            return not_enough(len(mine.items), f"the same {side} answers expected on both sides")
        if not np.isfinite(mine.values - theirs.values).all():
            return not_enough(len(mine.items), f"log-probs of {side} answers that are not finite")
    return None
