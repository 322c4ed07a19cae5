"""What a policy gained and lost, from numbers per item.

Comparisons pair the same items, by item id. "Higher is better" holds for scores; bits per byte, where lower is
better, has its own tax, so that a positive tax always means lost. A comparison of unlike items is not made: the
estimate then says so instead of a value. Averages over the rounds of a lineage are in `drift.retention`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import stats

from workbench.drift.uncertainty import (
    FEWEST_GROUPS,
    Estimate,
    Floats,
    mean,
    not_enough,
    paired_difference,
    paired_shares,
    ratio,
    share,
    t_interval,
)
from workbench.tasks import Item

FEW_ANSWERS = 8
"""Up to this many distinct answers, accuracy is given per answer too."""


QUARTILES = 4


class Series(NamedTuple):
    """One metric of one policy on one suite, sorted by item id.

    Attributes:
        items: item ids, unique.
        values: one number per item, shape (items,).
        groups: items of one group are not independent.
    """

    items: tuple[str, ...]
    values: Floats
    groups: tuple[str, ...]


def series(items: Iterable[Item]) -> Series:
    """The numbers of one metric of one policy, in an order of their own.

    Raises:
        ValueError: an item occurs twice, or the items are of several suites or metrics.
    """
    rows = sorted(items, key=lambda row: row.item)
    kinds = sorted({(row.suite, row.metric) for row in rows})
    if len(kinds) > 1:
        raise ValueError(f"one metric of one suite expected, got {kinds}; choose one before")
    ids = tuple(row.item for row in rows)
    if len(set(ids)) < len(ids):
        twice = [item for item, count in Counter(ids).items() if count > 1]
        raise ValueError(f"each item once expected, got {twice[:3]} more than once; choose one policy and numerics")
    return Series(ids, np.array([row.value for row in rows], dtype=np.float64), tuple(row.group for row in rows))


def hits(margins: Series) -> Series:
    """1 where chosen is more likely than rejected (margin > 0), 0 where less, 0.5 at an exact tie; not finite stays."""
    scores = np.where(np.isfinite(margins.values), (np.sign(margins.values) + 1) / 2, np.nan)
    return margins._replace(values=scores)


def accuracy(margins: Series) -> Estimate:
    """Share of pairs with margin log p(chosen) - log p(rejected) > 0; an exact tie counts half. Wilson interval."""
    return share(hits(margins).values, margins.groups)


def accuracy_relative(margins: Series, base_margins: Series) -> Estimate:
    """Share of pairs whose margin is above the base's: the sign of the implicit DPO reward; a tie counts half."""
    reason = _unlike(margins, base_margins)
    return reason or accuracy(margins._replace(values=margins.values - base_margins.values))


def accuracy_change(after: Series, before: Series) -> Estimate:
    """Accuracy after minus accuracy before on the same pairs, from margins; positive means gained."""
    return _unlike(after, before) or paired_shares(hits(after).values, hits(before).values, after.groups)


def mean_margin(margins: Series) -> Estimate:
    """Mean margin in nats per pair. It grows with answer length: `margin_per_token` does not."""
    return mean(margins.values, margins.groups)


def margin_per_token(chosen: Series, rejected: Series, chosen_tokens: Series, rejected_tokens: Series) -> Estimate:
    """Mean of log p(chosen) / tokens(chosen) - log p(rejected) / tokens(rejected), in nats per token.

    Args:
        chosen: log-probability of each chosen answer, nats summed over its tokens.
        rejected: the same of each rejected answer.
        chosen_tokens: tokens of each chosen answer, at least 1.
        rejected_tokens: the same of each rejected answer.
    """
    for other in (rejected, chosen_tokens, rejected_tokens):
        if reason := _unlike(chosen, other):
            return reason
    margins = chosen.values / chosen_tokens.values - rejected.values / rejected_tokens.values
    return mean(margins, chosen.groups)


def tax(base: Series, child: Series) -> Estimate:
    """Alignment tax on scores between 0 and 1: base minus child on the same items; positive means lost."""
    return _unlike(base, child) or paired_shares(base.values, child.values, child.groups)


def step_tax(parent: Series, child: Series) -> Estimate:
    """What this one round cost on scores between 0 and 1: parent minus child; positive means lost."""
    return tax(parent, child)


def bits_tax(base: Series, child: Series) -> Estimate:
    """Tax on a text suite: bits the child needs beyond the base, as a share of the base's; positive means lost.

    (sum bits_child - sum bits_base) / sum bits_base over the same texts; the bytes cancel.
    """
    return _unlike(base, child) or ratio(child.values - base.values, base.values, child.groups)


def change(after: Series, before: Series) -> Estimate:
    """Mean of after - before on the same items, for any number, in its unit."""
    return _unlike(after, before) or paired_difference(after.values, before.values, after.groups)


def bits_per_byte(bits: Series, byte_counts: Series) -> Estimate:
    """Sum of -log2 p over the sum of UTF-8 bytes; lower is better."""
    return _unlike(bits, byte_counts) or ratio(bits.values, byte_counts.values, bits.groups)


def kl_per_token(kl: Series, tokens: Series) -> Estimate:
    """KL in nats per token: sum over samples over sum of tokens, with the standard error clustered by group.

    Args:
        kl: KL of each sample, nats summed over its tokens.
        tokens: tokens of each sample.
    """
    return _unlike(kl, tokens) or ratio(kl.values, tokens.values, kl.groups)


def distinct_2(texts: Sequence[str]) -> Estimate:
    """Distinct word pairs over all word pairs of the texts together (Li et al. 1510.03055).

    It falls as texts are added: compare equal numbers of texts only. The interval is a delete-one-text jackknife.
    """
    n = len(texts)
    pairs = [Counter(pairwise(text.split())) for text in texts]
    holders = Counter(pair for counts in pairs for pair in counts)
    total = sum(counts.total() for counts in pairs)
    if sum(1 for counts in pairs if counts) < FEWEST_GROUPS:
        return not_enough(n, f"fewer than {FEWEST_GROUPS} texts of two words or more")
    without = np.array(
        [
            (len(holders) - sum(1 for pair in counts if holders[pair] == 1)) / (total - counts.total())
            for counts in pairs
        ]
    )
    error = math.sqrt((n - 1) / n * float(((without - without.mean()) ** 2).sum()))
    return t_interval(len(holders) / total, error, freedom=n - 1, n=n, method="jackknife over texts")


def length(tokens: Series) -> Estimate:
    """Mean tokens per answer."""
    return mean(tokens.values, tokens.groups)


class Flips(NamedTuple):
    """Items whose score changed between two policies.

    Attributes:
        lost: ids of items that scored less after (right -> wrong).
        gained: ids of items that scored more after (wrong -> right).
        n: items compared.
        p: exact two-sided McNemar p: chance of a split at least this uneven if both ways were equally likely; 1 where
            nothing flipped. It takes items as independent.
    """

    lost: tuple[str, ...]
    gained: tuple[str, ...]
    n: int
    p: float


class Turned(NamedTuple):
    """How many items changed sides: `lost` score less after, `gained` more, of `n`; `p` as in `Flips`."""

    lost: int
    gained: int
    n: int
    p: float


def turned(lost: int, gained: int, n: int) -> Turned:
    """The counts with their exact two-sided McNemar p."""
    total = lost + gained
    return Turned(lost, gained, n, float(stats.binomtest(lost, total).pvalue) if total else 1.0)


def turned_of(lost: Estimate, gained: Estimate) -> Turned | None:
    """The same from two shares of the same items; None where there is none."""
    if lost.value is None or gained.value is None:
        return None
    return turned(round(lost.value * lost.n), round(gained.value * gained.n), lost.n)


def flips(before: Series, after: Series) -> Flips:
    """What flipped, from scores (right 1, wrong 0, tie 0.5); for margins, `flips(hits(a), hits(b))`.

    Raises:
        ValueError: the two are not of the same items.
    """
    if reason := _unlike(before, after):
        raise ValueError(reason.method)
    lost = tuple(i for i, a, b in zip(before.items, before.values, after.values, strict=True) if b < a)
    gained = tuple(i for i, a, b in zip(before.items, before.values, after.values, strict=True) if b > a)
    return Flips(lost, gained, len(before.items), turned(len(lost), len(gained), len(before.items)).p)


class Quartile(NamedTuple):
    """Pairs of one quartile of the margin they had before, the first the lowest: wrong then, or least sure of what is right.

    Attributes:
        before: mean margin before, nats per pair.
        change: of the margin, nats per pair.
        lost: share of pairs that score less after, as in `Flips`: right before and wrong after.
    """

    before: Estimate
    change: Estimate
    lost: Estimate


def by_quartile(before: Series, after: Series) -> tuple[Quartile, ...]:
    """What became of pairs by their margin before, the sign included: an average hides who pays (arXiv 2606.19744).

    Raises:
        ValueError: the two are not of the same items.
    """
    if reason := _unlike(before, after):
        raise ValueError(reason.method)
    found: list[Quartile] = []
    lost = (hits(before).values > hits(after).values).astype(np.float64)
    for rows in quartiles(before):
        groups = [before.groups[i] for i in rows]
        was, now = before.values[rows], after.values[rows]
        found.append(Quartile(mean(was, groups), paired_difference(now, was, groups), share(lost[rows], groups)))
    return tuple(found)


def quartiles(before: Series) -> tuple[list[int], ...]:
    """Places of the pairs of each quartile of the margin before, the first the lowest."""
    order = np.argsort(before.values, kind="stable")
    return tuple(part.tolist() for part in np.array_split(order, QUARTILES))


def by_answer(margins: Series, answers: Mapping[str, str]) -> dict[str, Estimate]:
    """Accuracy per chosen answer, where few distinct ones occur (Yes/No, A to D): a shifted prior moves them apart.

    Args:
        margins: nats per pair.
        answers: the chosen answer of each item, by item id.

    Returns:
        By answer, sorted; empty where more than `FEW_ANSWERS` distinct answers occur.

    Raises:
        KeyError: an item has no answer.
    """
    given = [answers[item] for item in margins.items]
    if len(set(given)) > FEW_ANSWERS:
        return {}
    parts: dict[str, Estimate] = {}
    for answer in sorted(set(given)):
        rows = [k for k, one in enumerate(given) if one == answer]
        parts[answer] = share(hits(margins).values[rows], [margins.groups[k] for k in rows])
    return parts


def _unlike(first: Series, second: Series) -> Estimate | None:
    """Why the two cannot be compared item by item, or None where they can."""
    if first.items == second.items:
        return None
    shared = len(set(first.items) & set(second.items))
    return not_enough(
        shared,
        f"the same items expected on both sides, got {len(first.items)} and {len(second.items)}, {shared} shared",
    )
