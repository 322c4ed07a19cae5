"""What each judgement says about two answers, and what the votes on them come to.

Every opinion is read as a ranking with ties. A ranking of n answers votes on each strictly ordered pair with weight
1 / (n - 1), so that every answer takes part with a total of 1, as in one pairwise judgement. An edit beats the answers
the annotator put first.
"""

from collections.abc import Sequence
from enum import StrEnum
from itertools import combinations
from math import fsum
from typing import NamedTuple

from preference_data.records import Comparison, Judgement, Pairwise, Ranking, Rating, Thumb, Verdict

Ranks = tuple[tuple[int, ...], ...]
# Weights are sums of fractions; those that cancel leave less than this.
_EQUAL = 1e-9
NOTHING = ""
"""No answer: what a thumb that stands alone weighs its answer against."""
SET_ASIDE = frozenset(["late", "repeat", "trial"])
"""Flags of judgements that never become pairs: given when the item's places were taken, to see whether a person agrees
with themselves, or to be taught."""


class Unused(StrEnum):
    """Why a judgement became no pair."""

    TIE = "tie"
    NEITHER = "neither is good"
    SKIP = "skipped"
    THUMB = "thumb without one the other way"
    SINGLE = "one answer only"
    MISFIT = "opinion does not fit its comparison"
    SAME_TEXT = "answers have the same text"
    SET_ASIDE = "late, a repeat or a trial"


class Vote(NamedTuple):
    """One judgement's word that one text is the better answer to a prompt."""

    better: str
    worse: str
    weight: float
    strength: int | None
    judgement: str
    also: str = ""
    """A second judgement that the vote follows from, where one alone says nothing."""


class Outcome(NamedTuple):
    """What the votes on two texts come to.

    Attributes:
        weight: |weight for - weight against| / votes; 1 where all agree.
        strength: mean strength on the winning side, None where nobody gave one.
        contested: whether there were votes for the other text too.
    """

    chosen: str
    rejected: str
    weight: float
    strength: float | None
    contested: bool


def votes_of(comparison: Comparison, judgement: Judgement) -> tuple[list[Vote], Unused | None]:
    """The votes of one judgement.

    Returns:
        The votes, and why the opinion itself gave none; an edit may vote all the same.
    """
    if SET_ASIDE & set(judgement.flags):
        return [], Unused.SET_ASIDE
    count = len(comparison.completions)
    ranks, unused = _ranks(judgement, count)
    ranked = [index for tied in ranks for index in tied]
    if len(set(ranked)) < len(ranked) or not set(ranked) <= set(range(count)):
        return [], Unused.MISFIT
    key, texts = judgement.key, [completion.text for completion in comparison.completions]
    strength = judgement.opinion.strength if isinstance(judgement.opinion, Pairwise) else None
    weight = 1 / max(1, len(ranked) - 1)
    votes = [
        Vote(texts[better], texts[worse], weight, strength, key)
        for upper, lower in combinations(ranks, 2)
        for better in upper
        for worse in lower
    ]
    if judgement.edit.strip() and ranks:
        votes += [Vote(judgement.edit, texts[top], 1 / len(ranks[0]), None, key) for top in ranks[0]]
    telling = [vote for vote in votes if vote.better.strip() != vote.worse.strip()]
    if unused is None and not telling:
        unused = Unused.SAME_TEXT
    return telling, unused


def votes_of_thumbs(given: Sequence[tuple[Comparison, Judgement]]) -> list[Vote]:
    """What one person's thumbs on answers to one prompt say of these against each other; nothing where all are alike.

    Each answer that is good beats each that is bad, as in a ranking of all of them; a vote follows from two judgements.
    """
    sides: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
    for comparison, judgement in given:
        if isinstance(judgement.opinion, Thumb) and not SET_ASIDE & set(judgement.flags):
            sides[judgement.opinion.up].append((comparison.completions[0].text, judgement.key))
    bad, good = sides
    weight = 1 / max(1, len(good) + len(bad) - 1)
    return [
        Vote(better, worse, weight, None, liked, disliked)
        for better, liked in good
        for worse, disliked in bad
        if better.strip() != worse.strip()
    ]


def vote_of_thumb(comparison: Comparison, judgement: Judgement) -> Vote:
    """What a thumb says that stands alone: its answer is better than nothing, or worse."""
    text = comparison.completions[0].text
    better, worse = (text, NOTHING) if judgement.opinion == Thumb(up=True) else (NOTHING, text)
    return Vote(better, worse, 1.0, None, judgement.key)


def tally(votes: Sequence[Vote]) -> Outcome | None:
    """The majority among votes on the same two texts; None where both sides weigh the same."""
    first, second = votes[0].better, votes[0].worse
    balance = fsum(vote.weight if vote.better == first else -vote.weight for vote in votes)
    if abs(balance) < _EQUAL:
        return None
    chosen, rejected = (first, second) if balance > 0 else (second, first)
    winning = [vote for vote in votes if vote.better == chosen]
    strengths = [vote.strength for vote in winning if vote.strength is not None]
    return Outcome(
        chosen=chosen,
        rejected=rejected,
        weight=abs(balance) / len(votes),
        strength=sum(strengths) / len(strengths) if strengths else None,
        contested=len(winning) < len(votes),
    )


def _ranks(judgement: Judgement, count: int) -> tuple[Ranks, Unused | None]:
    """The opinion as indices from best to worst, tied ones together, and why it orders nothing if so."""
    match judgement.opinion:
        case Pairwise(verdict):
            return _pairwise_ranks(verdict) if count == 2 else ((), Unused.MISFIT)
        case Thumb():
            return ((0,),), Unused.THUMB
        case Rating(scores):
            ranks = _rating_ranks(judgement.opinion) if len(scores) == count else ()
        case Ranking(order):
            ranks = tuple(tied for tied in order if tied)
    match ranks:
        case ():
            return ranks, Unused.MISFIT
        case (tied,):
            return ranks, Unused.TIE if len(tied) > 1 else Unused.SINGLE
        case _:
            return ranks, None


def _pairwise_ranks(verdict: Verdict) -> tuple[Ranks, Unused | None]:
    match verdict:
        case Verdict.FIRST:
            return ((0,), (1,)), None
        case Verdict.SECOND:
            return ((1,), (0,)), None
        case Verdict.TIE:
            return ((0, 1),), Unused.TIE
        case Verdict.NEITHER:
            return ((0, 1),), Unused.NEITHER
        case Verdict.SKIP:
            return (), Unused.SKIP


def _rating_ranks(rating: Rating) -> Ranks:
    """Answers by their mean over the dimensions that all have; no ranks where they share none."""
    shared = sorted(set[str].intersection(*(set(scores) for scores in rating.scores)))
    if not shared:
        return ()
    means = [fsum(scores[name] for name in shared) / len(shared) for scores in rating.scores]
    levels = sorted(set(means), reverse=True)
    return tuple(tuple(index for index, mean in enumerate(means) if mean == level) for level in levels)
