"""Judgements of a simulated annotator on what nobody has judged yet."""

from itertools import islice
from typing import NamedTuple

from preference_data.errors import InputRefused
from preference_data.records import Pairwise, Verdict, now
from preference_data.simulate import GUIDELINES, judge
from preference_data.store import Entry, Store

BATCH = 1_000
"""Judgements per transaction."""

SIDES = 2


class Simulated(NamedTuple):
    """What came of it, in comparisons.

    Attributes:
        judged: now judged, ties included.
        ties: of these, too close to call by the guideline.
        passed_over: open comparisons that do not have two answers.
    """

    judged: int
    ties: int
    passed_over: int


def judge_open(store: Store, guideline: str, *, annotator: str, error_rate: float, seed: int) -> Simulated:
    """Judge every open comparison of two answers.

    Args:
        store: where the comparisons are and the judgements go.
        guideline: name of one of `simulate.GUIDELINES`.
        annotator: handle the judgements are given under.
        error_rate: share of verdicts turned round, from 0 to below 1.
        seed: which ones.

    Raises:
        InputRefused: the guideline is unknown, or the error rate out of bounds.
    """
    if guideline not in GUIDELINES:
        raise InputRefused(f"guideline {guideline!r}: unknown; expected one of {', '.join(GUIDELINES)}")
    if not 0 <= error_rate < 1:
        raise InputRefused(f"error rate: got {error_rate}; expected 0 or more and less than 1")
    ties = judged = passed_over = 0
    moment, rule = now(), GUIDELINES[guideline]
    open_ones = (entry.comparison for entry in store.entries() if not entry.judgements)
    while batch := list(islice(open_ones, BATCH)):
        pairs = [comparison for comparison in batch if len(comparison.completions) == SIDES]
        given = [judge(rule, c, annotator=annotator, error_rate=error_rate, seed=seed, at=moment) for c in pairs]
        store.add(Entry(comparison, (one,)) for comparison, one in zip(pairs, given, strict=True))
        judged += len(given)
        ties += sum(one.opinion == Pairwise(Verdict.TIE) for one in given)
        passed_over += len(batch) - len(pairs)
    return Simulated(judged, ties, passed_over)
