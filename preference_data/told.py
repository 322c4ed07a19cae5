"""All that people said in a project, with how it was shown: what leads look at."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import combinations
from math import fsum
from typing import NamedTuple, assert_never

from sqlalchemy import Connection, Engine, func, select

from preference_data import schema
from preference_data.database import reading
from preference_data.leases import LAST_WORD, Purpose
from preference_data.opinions import is_skip
from preference_data.projects import project_named
from preference_data.queue_schema import item, lease, lease_event
from preference_data.records import Opinion, Pairwise, Ranking, Rating, Thumb, Verdict, opinion_from_json

NEITHER = 9.0
"""Both bad, as a number that is no side."""


class Told(NamedTuple):
    """What a person last said of an item.

    Attributes:
        lease: number of the showing.
        item: number of the item.
        comparison: key of what was judged.
        person: handle of whoever judged.
        purpose: why the item was shown.
        outcome: what became of it: judged, skipped or late.
        opinion: about the answers in the order of the record.
        expected: the right answer of gold and trial items.
        shown_order: indices of the answers as they stood, left to right.
        lengths: characters of each answer, in the order of the record.
        seconds: how long it was on the screen.
        at: when it was judged (UTC).
        guideline: number of the project's change under which it was shown.
        withdrawn: that guideline was, and what was said under it counts for nothing.
        worked: when something was said of it, and how long it was on the screen then; corrections and what they correct.
    """

    lease: int
    item: int
    comparison: str
    person: str
    purpose: Purpose
    outcome: str
    opinion: Opinion
    expected: Opinion | None
    shown_order: tuple[int, ...]
    lengths: tuple[int, ...]
    seconds: float
    at: datetime
    guideline: int
    withdrawn: bool = False
    worked: tuple[tuple[datetime, float], ...] = ()


def told(engine: Engine, project: str) -> list[Told]:
    """What was said in a project, in the order it was shown; corrections replace what they correct.

    Raises:
        QueueError: no such project.
    """
    extra = schema.text.alias()
    wanted = (
        select(
            lease.c.id,
            lease.c.item,
            schema.comparison.c.key,
            schema.comparison.c.id.label("number"),
            schema.annotator.c.handle,
            lease.c.purpose,
            lease_event.c.outcome,
            schema.judgement.c.opinion,
            item.c.expected,
            lease.c.shown_order,
            extra.c.body,
            schema.judgement.c.at,
            lease.c.change,
        )
        .select_from(lease)
        .join(lease_event, LAST_WORD)
        .join(item, item.c.id == lease.c.item)
        .join(schema.comparison, schema.comparison.c.id == item.c.comparison)
        .join(schema.annotator, schema.annotator.c.id == lease.c.annotator)
        .join(schema.judgement, schema.judgement.c.key == lease_event.c.judgement)
        .outerjoin(extra, extra.c.digest == schema.judgement.c.extra)
        .order_by(lease.c.id)
    )
    with reading(engine) as connection:
        found = project_named(connection, project)
        number = found.number
        rows = connection.execute(wanted.where(item.c.project == number)).all()
        lengths, worked = _lengths(connection, number), _worked(connection, number)
    return [
        Told(
            row.id,
            row.item,
            row.key,
            row.handle,
            row.purpose,
            row.outcome,
            opinion_from_json(row.opinion),
            opinion_from_json(row.expected["opinion"]) if row.expected else None,
            tuple(row.shown_order),
            tuple(lengths[row.number]),
            _seconds(row.body),
            row.at,
            row.change,
            row.change < found.since,
            tuple(worked[row.id]),
        )
        for row in rows
    ]


def _lengths(connection: Connection, project: int) -> Mapping[int, list[int]]:
    """Characters of each answer of a comparison, by its number."""
    sizes = (
        select(schema.completion.c.comparison, func.length(schema.text.c.body))
        .join(schema.text, schema.text.c.digest == schema.completion.c.text)
        .join(item, item.c.comparison == schema.completion.c.comparison)
        .where(item.c.project == project)
        .order_by(schema.completion.c.comparison, schema.completion.c.position)
    )
    found: defaultdict[int, list[int]] = defaultdict(list)
    for comparison, size in connection.execute(sizes):
        found[comparison].append(size or 0)
    return found


def _worked(connection: Connection, project: int) -> Mapping[int, list[tuple[datetime, float]]]:
    """By lease, when something was said under it, and how long it was on the screen."""
    extra = schema.text.alias()
    wanted = (
        select(lease_event.c.lease, schema.judgement.c.at, extra.c.body)
        .join(lease, lease.c.id == lease_event.c.lease)
        .join(item, item.c.id == lease.c.item)
        .join(schema.judgement, schema.judgement.c.key == lease_event.c.judgement)
        .outerjoin(extra, extra.c.digest == schema.judgement.c.extra)
        .where(item.c.project == project)
    )
    found: defaultdict[int, list[tuple[datetime, float]]] = defaultdict(list)
    for number, at, body in connection.execute(wanted):
        found[number].append((at, _seconds(body)))
    return found


def _seconds(body: str | None) -> float:
    return float(json.loads(body or "{}").get("seconds", 0))


def counted(everything: Sequence[Told]) -> list[Told]:
    """The judgements of work items: without skips, late ones, gold, trials, repeats and those of withdrawn guidelines."""
    return [each for each in everything if each.purpose == "work" and each.outcome == "judged" and not each.withdrawn]


def dimensions(everything: Sequence[Told]) -> list[str]:
    """What answers were rated on, sorted; none where they were not rated."""
    rated = (one for each in counted(everything) if isinstance(each.opinion, Rating) for one in each.opinion.scores)
    return sorted({name for one in rated for name in one})


def questions(
    everything: Sequence[Told], *, ordinal: bool, dimension: str = ""
) -> Mapping[tuple[int, str], dict[str, float]]:
    """What agreement is computed from: by item and question, each person's answer as a number.

    A pairwise item, a thumb, each rating of an answer on a dimension and each pair of ranked answers is a question; those
    of one item are not independent of each other.

    Args:
        everything: judgements of one project.
        ordinal: pairwise answers from -3, the first much better, to 3, leaving out both bad; otherwise sides alone.
        dimension: of ratings; their numbers on different ones are not compared.
    """
    found: defaultdict[tuple[int, str], dict[str, float]] = defaultdict(dict)
    for each in counted(everything):
        for question, answer in answers(each.opinion, ordinal=ordinal).items():
            if not dimension or question.partition("/")[2] == dimension:
                found[each.item, question][each.person] = answer
    return found


def answers(opinion: Opinion, *, ordinal: bool) -> Mapping[str, float]:
    """An opinion as answers to questions; none for a skip."""
    if is_skip(opinion):
        return {}
    match opinion:
        case Pairwise(verdict, strength):
            return _side(verdict, strength or 1 if ordinal else 1, ordinal=ordinal)
        case Thumb(up):
            return {"": float(up)}
        case Rating(scores):
            return {f"{k}/{name}": score for k, one in enumerate(scores) for name, score in one.items()}
        case Ranking(order):
            rank = {k: place for place, tied in enumerate(order) for k in tied}
            return {
                f"{a}/{b}": float((rank[a] > rank[b]) - (rank[a] < rank[b])) for a, b in combinations(sorted(rank), 2)
            }
        case _:
            assert_never(opinion)


def _side(verdict: Verdict, strength: int, *, ordinal: bool) -> Mapping[str, float]:
    match verdict:
        case Verdict.FIRST:
            return {"": -float(strength)}
        case Verdict.SECOND:
            return {"": float(strength)}
        case Verdict.TIE:
            return {"": 0.0}
        case _:
            return {} if ordinal else {"": NEITHER}


def disputed(everything: Sequence[Told]) -> list[tuple[float, list[Told]]]:
    """Items on which people differ, the most disputed first: share of unequal pairs of answers, and who said what."""
    by_item: defaultdict[int, list[Told]] = defaultdict(list)
    for each in counted(everything):
        by_item[each.item].append(each)
    found: list[tuple[float, list[Told]]] = []
    for said in by_item.values():
        each = [answers(one.opinion, ordinal=False) for one in said]
        pairs = [(a[q], b[q]) for a, b in combinations(each, 2) for q in a.keys() & b.keys()]
        unequal = fsum(a != b for a, b in pairs) / len(pairs) if pairs else 0.0
        if unequal:
            found.append((unequal, said))
    return sorted(found, key=lambda one: (-one[0], -len(one[1]), one[1][0].item))
