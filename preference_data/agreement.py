"""How far annotators agree: as a share and corrected for chance, with intervals.

Everything here is a function of counts: how many annotators gave item i the answer k. A number that is not defined is
None with the reason, never 0.

| number | what chance is | missing judgements |
|---|---|---|
| percent | not corrected | allowed |
| Cohen's kappa (1960; weighted 1968) | each of two annotators' own shares | items both judged |
| Fleiss' kappa (1971) | shares of all judgements together | not allowed: as many judgements for each item |
| Krippendorff's alpha (2011) | two judgements drawn without replacement | allowed |

An interval is the 95 % percentile bootstrap over items, or over groups of those that are not independent, such as the
ratings of one answer. Kappa and alpha are undefined where every judgement is the
same answer: chance alone would agree always.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Judged = Mapping[str, float]
"""What each annotator answered about one item, by handle. Answers are numbers; of names, such as verdicts, any numbers
that tell them apart do."""

Groups = Sequence[int] | None
"""The group of each item; None where items are independent."""

Level = Literal["nominal", "ordinal", "interval"]
"""How far apart two answers are: differ or not; by the answers between them; by their difference."""

Weights = Literal["none", "linear", "quadratic"]

REPLICATES = 1000
AT_ONCE = 50
"""Replicates in memory together; each holds a number per item."""
FEWEST_ITEMS = 5
"""Below this many items an interval means little and none is given."""

Floats = NDArray[np.float64]


class Agreement(NamedTuple):
    """A figure of agreement.

    Attributes:
        value: None where it is not defined.
        low, high: bounds of the 95 % interval; None where there are too few items.
        items: items behind it: those with two judgements or more.
        judgements: judgements of those items.
        why: without a value or interval, the reason.
    """

    value: float | None
    low: float | None
    high: float | None
    items: int
    judgements: int
    why: str


def percent(judged: Sequence[Judged], rng: np.random.Generator, *, groups: Groups = None) -> Agreement:
    """Share of pairs of judgements of one item that give the same answer."""
    counts = _counts(judged)

    def figure(times: Floats) -> Floats:
        per_item = counts.sum(axis=1)
        same, pairs = (counts * (counts - 1)).sum(axis=1), per_item * (per_item - 1)
        return _quotient(times @ same, times @ pairs)

    return _agreement(counts, figure, rng, _kept(judged, groups))


def fleiss_kappa(judged: Sequence[Judged], rng: np.random.Generator, *, groups: Groups = None) -> Agreement:
    """Fleiss, "Measuring nominal scale agreement among many raters", Psychological Bulletin 76, 1971."""
    counts = _counts(judged)
    per_item = counts.sum(axis=1)
    if len(counts) and per_item.min() != per_item.max():
        few, most = int(per_item.min()), int(per_item.max())
        return _undefined(
            counts, f"items have {few} to {most} judgements; Fleiss' kappa needs equal numbers; see alpha"
        )

    def figure(times: Floats) -> Floats:
        n = per_item[0]
        agree = (counts * (counts - 1)).sum(axis=1) / (n * (n - 1))
        observed = _quotient(times @ agree, times.sum(axis=1))
        shares = (times @ counts) / (n * times.sum(axis=1, keepdims=True))
        return _over_chance(observed, (shares**2).sum(axis=1))

    return _agreement(counts, figure, rng, _kept(judged, groups))


def krippendorff_alpha(
    judged: Sequence[Judged], rng: np.random.Generator, *, level: Level, groups: Groups = None
) -> Agreement:
    """Krippendorff, "Computing Krippendorff's alpha-reliability", 2011; missing judgements are left out."""
    counts = _counts(judged)
    answers = _answers(judged)
    per_item = np.maximum(counts.sum(axis=1), 2)  # fewer are left out by `_counts`

    def figure(times: Floats) -> Floats:
        shared = times / (per_item - 1)
        # how often answers c and k meet within an item, both ways round
        met = np.einsum("bi,ic,ik->bck", shared, counts, counts)
        met[:, *np.diag_indices(len(answers))] -= shared @ counts
        totals = met.sum(axis=2)
        apart = np.stack([_distances(each, answers, level) for each in totals])
        observed = (met * apart).sum(axis=(1, 2))
        chance = (totals[:, :, None] * totals[:, None, :] * apart).sum(axis=(1, 2))
        return 1 - (totals.sum(axis=1) - 1) * _quotient(observed, chance)

    return _agreement(counts, figure, rng, _kept(judged, groups))


def cohen_kappa(
    judged: Sequence[Judged], first: str, second: str, rng: np.random.Generator, *, weights: Weights = "none"
) -> Agreement:
    """Cohen, "A coefficient of agreement for nominal scales", 1960; weighted: Psychological Bulletin 70, 1968.

    Args:
        judged: answers by annotator, per item.
        first: one annotator; only items both judged count.
        second: the other.
        rng: draws the bootstrap.
        weights: how much a disagreement counts: alike, or by places between the answers, or their square.
    """
    both = [{first: each[first], second: each[second]} for each in judged if first in each and second in each]
    counts, answers = _counts(both), _answers(both)
    places = {answer: k for k, answer in enumerate(answers)}
    given = np.array([[places[each[who]] for who in (first, second)] for each in both], dtype=int).reshape(-1, 2)
    one, other = (np.eye(len(answers))[given[:, side]] for side in (0, 1))
    between = np.abs(np.subtract.outer(np.arange(len(answers)), np.arange(len(answers)))).astype(float)
    cost = {"none": np.sign(between), "linear": between, "quadratic": between**2}[weights]

    def figure(times: Floats) -> Floats:
        table = np.einsum("bi,ic,ik->bck", times, one, other)
        expected = table.sum(axis=2)[:, :, None] * table.sum(axis=1)[:, None, :]
        paid = (table * cost).sum(axis=(1, 2)) * table.sum(axis=(1, 2))
        return 1 - _quotient(paid, (expected * cost).sum(axis=(1, 2)))

    return _agreement(counts, figure, rng)


def _answers(judged: Sequence[Judged]) -> Floats:
    """The distinct answers of items with two judgements or more, ascending."""
    return np.array(sorted({a for each in judged if len(each) > 1 for a in each.values()}), dtype=float)


def _counts(judged: Sequence[Judged]) -> Floats:
    """How often each answer was given, shape (items, answers); items with fewer than two judgements are left out."""
    answers = _answers(judged)
    several = [np.array(list(each.values()), dtype=float) for each in judged if len(each) > 1]
    rows = [(given[:, None] == answers).sum(axis=0) for given in several]
    return np.array(rows, dtype=float).reshape(len(rows), len(answers))


def _distances(totals: Floats, answers: Floats, level: Level) -> Floats:
    """Squared distance of each pair of answers, shape (answers, answers)."""
    match level:
        case "nominal":
            return 1 - np.eye(len(answers))
        case "interval":
            return np.subtract.outer(answers, answers) ** 2
        case "ordinal":
            # half of either end and all of what lies between, counted in judgements
            middle = np.cumsum(totals) - totals / 2
            return np.subtract.outer(middle, middle) ** 2


def _quotient(above: Floats, below: Floats) -> Floats:
    """Not a number where there is nothing to divide by."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)


def _over_chance(observed: Floats, chance: Floats) -> Floats:
    return _quotient(observed - chance, 1 - chance)


def _kept(judged: Sequence[Judged], groups: Groups) -> Groups:
    """Groups of the items that `_counts` keeps."""
    return groups and [group for each, group in zip(judged, groups, strict=True) if len(each) > 1]


def _agreement(
    counts: Floats, figure: Callable[[Floats], Floats], rng: np.random.Generator, groups: Groups = None
) -> Agreement:
    """The figure of all items, and of groups of items drawn with replacement.

    Args:
        counts: shape (items, answers).
        figure: from how often each item counts, shape (draws, items), to the figure of each draw.
        rng: draws the groups.
        groups: of each item; None where each is one.
    """
    items = len(counts)
    if not items:
        return _undefined(counts, "no item has two judgements")
    value = float(figure(np.ones((1, items)))[0])
    if np.isnan(value):
        return _undefined(counts, "every judgement is the same answer, so chance alone would agree always")
    found = Agreement(value, None, None, items, int(counts.sum()), "")
    codes = np.arange(items) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    count = int(codes.max()) + 1
    if count < FEWEST_ITEMS:
        return found._replace(why=f"{count} items are too few for an interval")
    even = np.full(count, 1 / count)
    drawn = [
        figure(rng.multinomial(count, even, size=AT_ONCE).astype(float)[:, codes]) for _ in range(REPLICATES // AT_ONCE)
    ]
    low, high = np.nanpercentile(np.concatenate(drawn), [2.5, 97.5])
    return found._replace(low=float(low), high=float(high))


def _undefined(counts: Floats, why: str) -> Agreement:
    return Agreement(None, None, None, len(counts), int(counts.sum()), why)
