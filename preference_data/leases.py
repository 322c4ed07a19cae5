"""Questions about items and leases that `Queue` puts together; each runs inside the caller's transaction.

Sides and the choice between work, gold and repeats are drawn from hashes of who and what, so that they look random to a
person, are the same when asked again, and need no state.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, cast

from sqlalchemy import Connection, and_, bindparam, exists, func, insert, or_, select, tuple_, update

from preference_data import schema
from preference_data.projects import Project
from preference_data.queries import COMPARISONS, assemble, lookup, number_of
from preference_data.queue_schema import item, lease, lease_event, open_item
from preference_data.records import Comparison

Purpose = Literal["work", "gold", "trial", "repeat"]
Outcome = Literal["judged", "skipped", "late", "released"]

PIECE = 16
"""Open items looked at at a time."""

_LATER = lease_event.alias()
LAST_WORD = and_(
    lease_event.c.lease == lease.c.id,
    lease_event.c.number == select(func.max(_LATER.c.number)).where(_LATER.c.lease == lease.c.id).scalar_subquery(),
)
_LEASES = (
    select(lease, lease_event.c.number, lease_event.c.outcome, lease_event.c.judgement, lease_event.c.at.label("ended"))
    .select_from(lease.outerjoin(lease_event, LAST_WORD))
    .order_by(lease.c.id)
)
"""Leases with what became of them last; nothing yet where `outcome` is None."""


JUDGED, SKIPPED = (lease_event.c.outcome == outcome for outcome in ("judged", "skipped"))

# Built once: building a statement costs more than SQLite takes to answer it.
_NUMBERED = _LEASES.add_columns(schema.annotator.c.handle).where(
    lease.c.id == bindparam("number"), schema.annotator.c.id == lease.c.annotator
)
_RUNNING = _LEASES.where(
    lease.c.annotator == bindparam("person"), lease_event.c.lease.is_(None), lease.c.until > bindparam("at")
)
_OWN_OPEN = _RUNNING.where(item.c.id == lease.c.item, item.c.project == bindparam("project"))
_OTHER_RUNNING = _RUNNING.where(
    lease.c.item == bindparam("item"), lease.c.id != bindparam("number"), lease.c.purpose == bindparam("purpose")
)
_AT = cast("Any", bindparam("at"))
_PERSON = cast("Any", bindparam("person"))
_SINCE = cast("Any", bindparam("since"))


def _answers() -> Any:
    """How many answers an item has."""
    completion = schema.completion.c
    return select(func.count()).where(completion.comparison == item.c.comparison).scalar_subquery().label("answers")


def _taken() -> Any:
    """How many places of an open item are judged or held."""
    holds = and_(lease_event.c.lease.is_(None), lease.c.until > _AT)
    return (
        select(func.count())
        .select_from(lease.outerjoin(lease_event, LAST_WORD))
        .where(
            lease.c.item == open_item.c.item,
            lease.c.purpose == "work",
            lease.c.change >= _SINCE,
            or_(JUDGED, holds),
        )
        .correlate(open_item)
        .scalar_subquery()
    )


def _known_to(number: Any) -> Any:
    """Whether a person answered an item or holds it now. One that ran out unanswered may be shown to them again."""
    told = select(lease_event.c.lease).where(lease_event.c.lease == lease.c.id)
    answered = exists(told.where(lease_event.c.outcome != "released"))
    held = and_(lease.c.until > _AT, ~exists(told))
    own = (lease.c.annotator == _PERSON, lease.c.item == number, lease.c.change >= _SINCE)
    return exists(select(lease.c.id).where(*own, or_(answered, held)))


_FRESH = (
    select(
        item.c.id,
        item.c.comparison,
        item.c.purpose,
        item.c.needs,
        schema.comparison.c.slices,
        _answers(),
        open_item.c.rank,
        open_item.c.draw,
    )
    .select_from(
        open_item.join(item, item.c.id == open_item.c.item).join(
            schema.comparison, schema.comparison.c.id == item.c.comparison
        )
    )
    .where(
        open_item.c.project == bindparam("project"),
        ~_known_to(open_item.c.item),
        _taken() < bindparam("overlap"),
    )
    .order_by(open_item.c.rank, open_item.c.draw, open_item.c.item)
    .limit(PIECE)
)
_FRESH_AFTER = _FRESH.where(
    tuple_(open_item.c.rank, open_item.c.draw, open_item.c.item)
    > tuple_(bindparam("rank"), bindparam("draw"), bindparam("item"))
)
_SPECIAL = (
    select(item, schema.comparison.c.slices, _answers())
    .join(schema.comparison, schema.comparison.c.id == item.c.comparison)
    .where(item.c.project == bindparam("project"), item.c.purpose == bindparam("purpose"), ~_known_to(item.c.id))
    .order_by(item.c.draw)
)
_SAID = (
    select(lease_event.c.judgement)
    .where(lease_event.c.lease == bindparam("number"), lease_event.c.judgement.is_not(None))
    .order_by(lease_event.c.number)
)
_LAST_EVENT = select(func.max(lease_event.c.number)).where(lease_event.c.lease == bindparam("number"))
_SUBJECT = (
    select(schema.comparison.c.key)
    .join(item, item.c.comparison == schema.comparison.c.id)
    .where(
        item.c.id == bindparam("number"),
        ~exists().where(
            schema.completion.c.comparison == schema.comparison.c.id,
            schema.text.c.digest == schema.completion.c.text,
            schema.text.c.body.is_(None),
        ),
    )
)


class Person(NamedTuple):
    """Who is asking.

    Attributes:
        number: the store's.
        abilities: what the person can judge, by slice name.
        avoid: what the person does not want to see, by slice name.
    """

    number: int
    handle: str
    abilities: Mapping[str, Collection[str]]
    avoid: Mapping[str, Collection[str]]


class Showing(NamedTuple):
    """An item shown to a person.

    Attributes:
        lease: its number.
        comparison: what is to be judged; never to be sent to a page as it is, for it names policies.
        shown_order: indices of the completions as they stand on the screen, left to right.
        purpose: why it is shown; people are not told gold or repeats from work.
        until: when the place is given to somebody else (UTC).
    """

    lease: int
    comparison: Comparison
    shown_order: tuple[int, ...]
    purpose: Purpose
    until: datetime


def chance(*parts: object) -> float:
    """A number in [0, 1) that depends on what is given alone."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:6], "big") / 2**48


def side_order(person: str, comparison: str, answers: int) -> tuple[int, ...]:
    """The order answers stand in, each as likely as any other."""
    return tuple(sorted(range(answers), key=lambda k: chance("side", person, comparison, k)))


def lease_row(connection: Connection, number: int) -> Any:
    """A lease with what became of it last and its person's `handle`, None where there is none of that number."""
    return connection.execute(_NUMBERED, {"number": number}).first()


class Held(NamedTuple):
    """A lease that runs: its number, its item, the project's change it was given under, and as in `Showing`."""

    id: int
    item: int
    purpose: Purpose
    shown_order: tuple[int, ...]
    until: datetime
    change: int


def own_open(connection: Connection, project: int, person: int, at: datetime) -> list[Held]:
    """A person's leases in a project that run, oldest first."""
    rows: Iterable[Any] = connection.execute(_OWN_OPEN, {"project": project, "person": person, "at": at})
    return [Held(row.id, row.item, row.purpose, tuple(row.shown_order), row.until, row.change) for row in rows]


def own_ended(connection: Connection, project: int, person: int, purpose: Purpose | None = None) -> list[Any]:
    """A person's leases in a project that ended, oldest first; of one purpose where one is given."""
    wanted = _LEASES.where(
        item.c.id == lease.c.item,
        item.c.project == project,
        lease.c.annotator == person,
        lease_event.c.lease.is_not(None),
    )
    return list(connection.execute(wanted if purpose is None else wanted.where(lease.c.purpose == purpose)).all())


def shown_since(connection: Connection, project: int, person: int, since: datetime | None = None) -> int:
    """How many items a person was shown in a project, by now or from some time on."""
    wanted = (
        select(func.count())
        .select_from(lease.join(item, item.c.id == lease.c.item))
        .where(item.c.project == project, lease.c.annotator == person)
    )
    return number_of(connection, wanted if since is None else wanted.where(lease.c.at >= since))


def fresh(connection: Connection, project: Project, person: Person, at: datetime) -> Iterator[Any]:
    """Rows of open items with a place left that this person has not been asked about, in the order of the queue."""
    which = {
        "project": project.number,
        "person": person.number,
        "at": at,
        "since": project.since,
        "overlap": project.settings.overlap,
    }
    rows: Sequence[Any] = ()
    while True:
        after = {"rank": rows[-1].rank, "draw": rows[-1].draw, "item": rows[-1].id} if rows else {}
        rows = connection.execute(_FRESH_AFTER if after else _FRESH, which | after).all()
        yield from (row for row in rows if _can(person, row.needs) and not avoids(person, row.slices))
        if len(rows) < PIECE:
            return


def special(
    connection: Connection, project: Project, person: Person, purpose: Literal["gold", "trial"], *, at: datetime
) -> list[Any]:
    """Rows of gold or trial items this person has neither answered nor before them, nor wants not to see."""
    which = {"project": project.number, "purpose": purpose, "person": person.number, "at": at, "since": project.since}
    return [row for row in connection.execute(_SPECIAL, which) if not avoids(person, row.slices)]


def to_repeat(connection: Connection, project: Project, person: Person) -> Any:
    """A lease of this person whose item may be shown again, None where none is old enough."""
    ended = own_ended(connection, project.number, person.number)
    again = {row.item for row in ended if row.purpose == "repeat"}
    old = [row for row in ended if row.purpose == "work" and row.outcome == "judged" and row.item not in again]
    if not old or len(ended) - ended.index(old[0]) <= project.settings.repeat_after:
        return None
    return old[0] if wanted_by(connection, old[:1], person) else None


def give(
    connection: Connection,
    project: Project,
    person: Person,
    wanted: Sequence[tuple[int, Purpose, tuple[int, ...]]],
    *,
    at: datetime,
) -> list[Held]:
    """Lease items: number, purpose, and the order of the answers."""
    first = number_of(connection, select(func.max(lease.c.id))) + 1
    until = at + timedelta(seconds=project.settings.lease_s)
    held = [
        Held(number, which, purpose, order, until, project.change)
        for number, (which, purpose, order) in enumerate(wanted, start=first)
    ]
    same = {"annotator": person.number, "at": at}
    if held:
        connection.execute(
            insert(lease), [{**each._asdict(), "shown_order": list(each.shown_order), **same} for each in held]
        )
    return held


def extend(connection: Connection, held: Sequence[Held], until: datetime) -> list[Held]:
    """Let leases run longer; never shorter."""
    if short := [each.id for each in held if each.until < until]:
        connection.execute(update(lease).where(lease.c.id.in_(short)).values(until=until))
    return [each._replace(until=max(each.until, until)) for each in held]


def renewed(
    connection: Connection, project: Project, person: Person, held: Sequence[Held], *, at: datetime
) -> list[Held]:
    """Leases with those from before the guideline was withdrawn given anew: from now on its successor is read with them."""
    old = [each for each in held if each.change < project.since]
    for each in old:
        end(connection, each.id, "released", None, at=at)
    again: list[tuple[int, Purpose, tuple[int, ...]]] = [(each.item, each.purpose, each.shown_order) for each in old]
    return [*(each for each in held if each not in old), *give(connection, project, person, again, at=at)]


def wanted_by(connection: Connection, rows: Iterable[Any], person: Person) -> list[Any]:
    """Leases without those of what a person does not want to see."""
    rows = list(rows)
    if not person.avoid:
        return rows
    what = comparisons_of(connection, {row.item for row in rows})
    return [row for row in rows if row.item not in what or not avoids(person, what[row.item][1].slices)]


def comparisons_of(connection: Connection, items: Collection[int]) -> dict[int, tuple[str, Comparison]]:
    """What items ask, by item, with the key each comparison was stored under; without those of which a text is gone."""
    numbers = {which: number for number, which in lookup(connection, item.c.id, item.c.comparison, items).items()}
    found = connection.execute(COMPARISONS.where(schema.comparison.c.id.in_(numbers))).all()
    keys = {row.key: numbers[row.id] for row in found}
    return {keys[stored.key]: (stored.key, stored.comparison) for stored in assemble(connection, found, until=0)}


def subject(connection: Connection, number: int) -> str | None:
    """The key of what an item asks, None where an answer was erased."""
    return connection.execute(_SUBJECT, {"number": number}).scalar()


def showings(connection: Connection, rows: Iterable[Any]) -> list[Showing]:
    """Leases as what is shown; those whose texts were erased are left out."""
    rows = list(rows)
    what = comparisons_of(connection, {row.item for row in rows})
    return [
        Showing(row.id, what[row.item][1], tuple(row.shown_order), row.purpose, row.until)
        for row in rows
        if row.item in what
    ]


def _can(person: Person, needs: Mapping[str, str]) -> bool:
    """Whether a person has what an item asks for; `person` names who alone may judge it."""
    return all(
        value == person.handle if name == "person" else value in person.abilities.get(name, ())
        for name, value in needs.items()
    )


def avoids(person: Person, slices: Mapping[str, str]) -> bool:
    """Whether a person does not want to see what is in these slices."""
    return any(slices.get(name) in values for name, values in person.avoid.items())


def runs(row: Any, at: datetime) -> bool:
    """Whether a lease holds its place."""
    return row.outcome is None and row.until > at


def other_running(connection: Connection, row: Any, at: datetime) -> Any:
    """Another lease of the same person on the same item that runs, None where there is none."""
    which = {"item": row.item, "person": row.annotator, "number": row.id, "purpose": row.purpose, "at": at}
    return connection.execute(_OTHER_RUNNING, which).first()


def end(connection: Connection, number: int, outcome: Outcome, judgement: str | None, *, at: datetime) -> None:
    """Say what became of a lease; the last word counts."""
    last = connection.execute(_LAST_EVENT, {"number": number}).scalar() or 0
    row = {"lease": number, "number": last + 1, "outcome": outcome, "judgement": judgement, "at": at}
    connection.execute(insert(lease_event), row)


def said_under(connection: Connection, number: int) -> tuple[str, ...]:
    """Keys of the judgements given under a lease, in order."""
    return tuple(connection.execute(_SAID, {"number": number}).scalars())
