"""Asking people only where it pays: a proxy labels what it is sure of, and a random share tells whether it may.

The proxy is a reward with the policy's own margin beside it: a cheap answer that decides whether the dear one is asked for
(SlimPLM, Tan et al., arXiv 2402.12052).
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from preference_data.records import Comparison, Pairwise, Verdict, digest
from preference_data.store import Entry
from workbench.config import ProxySettings
from workbench.drift.uncertainty import Estimate, not_enough, proportion


class Routed(NamedTuple):
    """Which comparisons of a turn go where, by key.

    Attributes:
        proxy: those the proxy labels.
        control: those drawn at random that are judged by whoever judges, sure or not.
        first: those whose first answer the proxy prefers.
        second: those whose second answer it prefers.
        sure: those the proxy is sure of.
    """

    proxy: frozenset[str]
    control: frozenset[str]
    first: frozenset[str]
    second: frozenset[str]
    sure: frozenset[str]


class Saved(NamedTuple):
    """What it saved, and what it cost.

    Attributes:
        share: of the comparisons that the proxy labelled.
        sure: how often it is right where it is sure, on the control.
        random: how often it would be right had it labelled at random, on the same control: what routing has to beat.
    """

    share: float
    sure: Estimate
    random: Estimate


def route(
    comparisons: Sequence[Comparison], gaps: Sequence[float], margins: Mapping[str, float], settings: ProxySettings
) -> Routed:
    """Where each comparison goes; the same ones wherever it runs.

    Args:
        comparisons: of two answers.
        gaps: reward of the first answer minus the second's.
        margins: log-prob of the first answer minus the second's under the policy, by key; one that is missing agrees with nothing.
        settings: how sure it must be, and the share of the control.
    """
    control = frozenset(c.key for c in comparisons if _drawn(c.key) < settings.control)
    least = math.log(settings.confidence / (1 - settings.confidence))
    sure = frozenset(
        c.key
        for c, gap in zip(comparisons, gaps, strict=True)
        if abs(gap) >= least and (not settings.agreeing or gap * margins.get(c.key, 0.0) > 0)
    )
    first, second = (
        frozenset(c.key for c, gap in zip(comparisons, gaps, strict=True) if side * gap > 0) for side in (1, -1)
    )
    return Routed(sure - control, control, first, second, sure)


def saved(routed: Routed, entries: Sequence[Entry]) -> Saved:
    """What routing saved, from judgements on the control that decided.

    Args:
        routed: as they were.
        entries: comparisons of the turn with their judgements.
    """
    right = {
        e.comparison.key: (said == Verdict.FIRST) == (e.comparison.key in routed.first)
        for e in entries
        if e.comparison.key in routed.control & (routed.first | routed.second) and (said := _decided(e)) is not None
    }
    among = [hit for key, hit in right.items() if key in routed.sure]
    return Saved(len(routed.proxy) / len(entries) if entries else 0.0, _share(among), _share(list(right.values())))


def _share(hits: Sequence[bool]) -> Estimate:
    return proportion(sum(hits), len(hits)) if hits else not_enough(0, "no judgement on the control")


def _decided(entry: Entry) -> Verdict | None:
    for one in reversed(entry.judgements):
        if isinstance(one.opinion, Pairwise) and one.opinion.verdict in {Verdict.FIRST, Verdict.SECOND}:
            return one.opinion.verdict
    return None


def _drawn(key: str) -> float:
    """In [0, 1), by content."""
    return int(digest(["control", key])[:13], 16) / 16**13
