"""Policies ranked by what people preferred: Bradley-Terry with intervals that know that judgements share prompts.

P(first beats second) = sigma(s_first - s_second + c . x), x what the answers differ in beside their policies, such as
length (style control as in arXiv 2403.04132's leaderboard). A tie counts half a win each way. Strengths are in logits
around their mean.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from workbench.drift.uncertainty import FEWEST_GROUPS, Estimate, Floats, Z, not_enough

RIDGE = 0.05
"""Pull of every strength towards the mean, in judgements: who never lost is not infinitely strong."""
STEPS = 100


class Decided(NamedTuple):
    """One judgement: the first policy's score between 0 and 1, and differences that are controlled for."""

    first: str
    second: str
    score: float
    group: str
    differences: tuple[float, ...] = ()


class Ranking(NamedTuple):
    """Strengths in logits, the strongest first, and how much each controlled difference helps per standard deviation."""

    strengths: tuple[tuple[str, Estimate], ...]
    effects: tuple[Estimate, ...]


def rank(decided: Sequence[Decided]) -> Ranking:
    """Strengths by maximum likelihood with a weak pull to the mean; sandwich intervals over groups.

    The covariance is H^-1 (sum_g s_g s_g^T) H^-1 G/(G-1), s_g the score of group g, H the information (Liang and Zeger
    1986, doi:10.1093/biomet/73.1.13). Where a policy always won, or all are ties, residuals vanish and that says
    nothing: no standard error is taken below that of H^-1. Policies that were never compared with the largest group,
    not even through others, have no strength.

    Raises:
        ValueError: judgements differ in how many differences they state.
    """
    together = max(_connected(decided), key=len, default=set[str]())
    apart = {name for one in decided for name in (one.first, one.second)} - together
    alone = not_enough(0, "never compared with the others, not even through others")
    unranked = tuple((name, alone) for name in sorted(apart))
    decided = [one for one in decided if one.first in together]
    names = sorted(together)
    groups = len({one.group for one in decided})
    if groups < FEWEST_GROUPS:
        few = not_enough(len(decided), f"{groups} independent prompts, at least {FEWEST_GROUPS} needed")
        return Ranking((*((name, few) for name in names), *unranked), ())
    design, scores = _design(decided, names)
    pull = np.diag([RIDGE] * len(names) + [1e-6] * (design.shape[1] - len(names)))
    found = np.zeros(design.shape[1])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-design @ found))
        gradient = design.T @ (scores - chance) - pull @ found
        information = design.T @ (design * (chance * (1 - chance))[:, None]) + pull
        step = np.linalg.solve(information, gradient)
        found += step
        if float(np.abs(step).max()) < 1e-10:
            break
    chance = 1 / (1 + np.exp(-design @ found))
    information = design.T @ (design * (chance * (1 - chance))[:, None]) + pull
    errors = _errors(design * (scores - chance)[:, None], [one.group for one in decided], information, len(names))
    played = {name: sum(name in {one.first, one.second} for one in decided) for name in names}
    centred = found[: len(names)] - found[: len(names)].mean()
    made = [_estimate(centred[k], errors[k], played[name]) for k, name in enumerate(names)]
    strengths = sorted(zip(names, made, strict=True), key=lambda each: -(each[1].value or 0.0))
    effects = tuple(_estimate(found[k], errors[k], len(decided)) for k in range(len(names), design.shape[1]))
    return Ranking((*strengths, *unranked), effects)


def _connected(decided: Sequence[Decided]) -> list[set[str]]:
    """Policies in groups within which each was compared with each, directly or through others."""
    groups: list[set[str]] = []
    for one in decided:
        pair = {one.first, one.second}
        touched = [group for group in groups if group & pair]
        groups = [group for group in groups if not group & pair] + [pair.union(*touched)]
    return groups


def _design(decided: Sequence[Decided], names: Sequence[str]) -> tuple[Floats, Floats]:
    """+1 for the first policy, -1 for the second, then the differences in standard deviations."""
    extra = {len(one.differences) for one in decided}
    if len(extra) > 1:
        raise ValueError(f"as many differences for every judgement expected, got {sorted(extra)}")
    places = {name: k for k, name in enumerate(names)}
    design = np.zeros((len(decided), len(names)))
    for row, one in enumerate(decided):
        design[row, places[one.first]] += 1
        design[row, places[one.second]] -= 1
    differences = np.array([one.differences for one in decided], dtype=np.float64).reshape(len(decided), -1)
    spread = differences.std(axis=0)
    differences = differences[:, spread > 0] / spread[spread > 0]
    return np.hstack([design, differences]), np.array([one.score for one in decided], dtype=np.float64)


def _errors(scores: Floats, groups: Sequence[str], information: Floats, policies: int) -> Floats:
    """Standard errors, the larger of sandwich and model; of strengths, those of their distance from the mean."""
    codes = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)[1]
    sums = np.zeros((int(codes.max()) + 1, scores.shape[1]))
    np.add.at(sums, codes, scores)
    inverse = np.linalg.inv(information)
    count = len(sums)
    covariance = inverse @ (sums.T @ sums) @ inverse * count / (count - 1)
    centring = np.eye(scores.shape[1])
    centring[:policies, :policies] -= 1 / policies
    found = [np.diag(centring @ each @ centring.T) for each in (covariance, inverse)]
    return np.sqrt(np.maximum(*found))


def _estimate(value: float, error: float, n: int) -> Estimate:
    half = Z * float(error)
    return Estimate(float(value), float(value) - half, float(value) + half, n, "sandwich over prompts")
