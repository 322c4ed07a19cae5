"""Votes become pairs and single answers: gathered by prompt and texts, decided, sliced, and freed of near twins."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from preference_data.duplicates import signature, similar
from preference_data.records import Comparison, Judgement, Pair, Prompt, Single, Split
from preference_data.splits import Home
from preference_data.votes import NOTHING, Outcome, Unused, Vote, tally, vote_of_thumb, votes_of, votes_of_thumbs

# Characters of the chosen answer: up to 199 short, up to 799 medium, long from there.
LENGTH_BANDS = {"short": 200, "medium": 800}
UNKNOWN = "unknown"


class Ballot(NamedTuple):
    """A judgement and what it is about.

    Attributes:
        group: of who gave it, empty where there is none.
        weight: how much its votes count, in (0, 1].
    """

    comparison: Comparison
    judgement: Judgement
    group: str
    weight: float = 1.0


class Contest(NamedTuple):
    """All votes on two texts for one prompt, with the ballots they came from."""

    prompt: Prompt
    votes: list[Vote]
    ballots: list[Ballot]


class Gathered(NamedTuple):
    """Contests of two answers each, and those of one answer with `NOTHING`, from thumbs that stand alone."""

    pairs: list[Contest]
    singles: list[Contest]


class Placed(NamedTuple):
    """A pair and the cluster its prompt lives in."""

    pair: Pair
    cluster: str


class Resolved(NamedTuple):
    """Decided contests.

    Attributes:
        dropped: contests that became no pair, by reason.
        contested: contests with votes both ways that a majority decided.
    """

    placed: list[Placed]
    dropped: Counter[str]
    contested: int


def gather(ballots: Iterable[Ballot], unused: Counter[str]) -> Gathered:
    """All votes by prompt and texts, sorted by them. Adds the judgements without a vote to `unused`, by reason.

    Thumbs of one person on several answers to a prompt are a ranking of two ranks: what is good before what is bad. One
    without a thumb the other way stands alone.
    """
    contests: dict[tuple[str, str, str], Contest] = {}
    singles: dict[tuple[str, str, str], Contest] = {}
    thumbs: dict[tuple[str, str], list[Ballot]] = defaultdict(list)
    for ballot in ballots:
        votes, reason = votes_of(ballot.comparison, ballot.judgement)
        if reason == Unused.THUMB:
            thumbs[ballot.comparison.prompt.key, ballot.judgement.annotator].append(ballot)
        elif reason:
            unused[reason.value] += 1
        _add(contests, votes, ballot)
    for given in thumbs.values():
        votes = votes_of_thumbs([(each.comparison, each.judgement) for each in given])
        for each in given:
            _add(contests, [vote for vote in votes if vote.judgement == each.judgement.key], each)
            _add(singles, [] if votes else [vote_of_thumb(each.comparison, each.judgement)], each)
    return Gathered([contests[key] for key in sorted(contests)], [singles[key] for key in sorted(singles)])


def _add(contests: dict[tuple[str, str, str], Contest], votes: Iterable[Vote], ballot: Ballot) -> None:
    """Put the votes of a ballot where they belong."""
    prompt = ballot.comparison.prompt
    prompt_key = prompt.key
    for vote in votes:
        left, right = sorted((vote.better, vote.worse))
        contest = contests.setdefault((prompt_key, left, right), Contest(prompt, [], []))
        contest.votes.append(vote._replace(weight=vote.weight * ballot.weight))
        contest.ballots.append(ballot)


def resolve(contests: Iterable[Contest], homes: Mapping[str, Home], *, min_weight: float) -> Resolved:
    """Decide each contest by its votes.

    Args:
        contests: each with at least one vote.
        homes: where each prompt lives, by prompt key; a prompt without a home gives no pairs.
        min_weight: pairs of less weight are dropped.
    """
    placed: list[Placed] = []
    dropped: Counter[str] = Counter()
    contested = 0
    for contest in contests:
        outcome = tally(contest.votes)
        home = homes.get(contest.prompt.key)
        if outcome is None:
            dropped["contradiction"] += 1
            continue
        contested += outcome.contested
        if outcome.weight < min_weight:
            dropped["weight below the minimum"] += 1
        elif home is None:
            dropped["prompt resembles prompts of different splits"] += 1
        elif not _is_unicode(pair := _pair(contest, outcome, home.split)):
            dropped["text is not valid Unicode"] += 1
        else:
            placed.append(Placed(pair, home.cluster))
    return Resolved(placed, dropped, contested)


def single_of(pair: Pair) -> Single:
    """The answer of a pair with `NOTHING`."""
    good = pair.rejected == NOTHING
    text = pair.chosen if good else pair.rejected
    return Single(pair.prompt, text, good, pair.weight, pair.judgements, pair.slices, pair.split)


def without_twins(placed: Iterable[Placed]) -> list[Placed]:
    """Of pairs in one cluster with similar chosen and similar rejected answers, only the one with the smallest key.

    Args:
        placed: pairs of distinct keys.
    """
    clusters: dict[str, list[Placed]] = defaultdict(list)
    for each in placed:
        clusters[each.cluster].append(each)
    kept: list[Placed] = []
    for members in clusters.values():
        kept += _first_of_twins(members) if len(members) > 1 else members
    return kept


def _first_of_twins(members: Iterable[Placed]) -> list[Placed]:
    kept: list[Placed] = []
    chosen: list[bytes] = []
    rejected: list[bytes] = []
    for each in sorted(members, key=lambda member: member.pair.key):
        better, worse = signature(each.pair.chosen), signature(each.pair.rejected)
        if not (similar(better, chosen) & similar(worse, rejected)).any():
            kept.append(each)
            chosen.append(better)
            rejected.append(worse)
    return kept


def _pair(contest: Contest, outcome: Outcome, split: Split) -> Pair:
    return Pair(
        prompt=contest.prompt,
        chosen=outcome.chosen,
        rejected=outcome.rejected,
        weight=outcome.weight,
        strength=outcome.strength,
        judgements=tuple(sorted({key for vote in contest.votes for key in (vote.judgement, vote.also) if key})),
        slices=_slices(contest.ballots, outcome.chosen or outcome.rejected),
        split=split,
    )


def _is_unicode(pair: Pair) -> bool:
    """Whether files and tokenizers can take the texts: a lone surrogate fits neither."""
    turns = [part for message in pair.prompt.messages for part in message]
    try:
        "".join([*turns, pair.chosen, pair.rejected, *pair.slices, *pair.slices.values()]).encode()
    except UnicodeEncodeError:
        return False
    return True


def _slices(ballots: Iterable[Ballot], answer: str) -> dict[str, str]:
    """The slices of all that a pair or a single answer comes from; values that differ are joined by `+`."""
    values: dict[str, set[str]] = defaultdict(set)
    for comparison, _, group, _ in ballots:
        own = {**comparison.slices, "source": comparison.source} | ({"annotator_group": group} if group else {})
        for name, value in own.items():
            values[name].add(value)
    band = next((name for name, bound in LENGTH_BANDS.items() if len(answer) < bound), "long")
    known = {name: "+".join(sorted(found)) for name, found in values.items()}
    return {"domain": UNKNOWN, "language": UNKNOWN, "annotator_group": UNKNOWN} | known | {"length_band": band}
