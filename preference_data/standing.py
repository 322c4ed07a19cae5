"""How far items are: judged, held, skipped; which of them are open; how far a project is."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, case, delete, func, select

from preference_data.database import insert_missing
from preference_data.leases import JUDGED, LAST_WORD, SKIPPED
from preference_data.projects import Project
from preference_data.queries import VARIABLES, number_of
from preference_data.queue_schema import item, lease, lease_event, open_item


class Standing(NamedTuple):
    """How far an item is: places that are judged, places that are held, and how many skipped it."""

    judged: int
    held: int
    skipped: int


def _how_many(when: Any, name: str) -> Any:
    return func.sum(case((when, 1), else_=0)).label(name)


_STANDING = (
    select(
        lease.c.item,
        _how_many(JUDGED, "judged"),
        _how_many(and_(lease_event.c.lease.is_(None), lease.c.until > bindparam("at")), "held"),
        _how_many(SKIPPED, "skipped"),
    )
    .select_from(lease.outerjoin(lease_event, LAST_WORD))
    .where(
        lease.c.purpose == "work",
        lease.c.change >= bindparam("since"),
        lease.c.item.in_(bindparam("items", expanding=True)),
    )
    .group_by(lease.c.item)
)
_REMAINING = select(
    select(func.count()).where(item.c.project == bindparam("project"), item.c.purpose == "work").scalar_subquery(),
    select(func.count()).where(open_item.c.project == bindparam("project")).scalar_subquery(),
)


def standing(connection: Connection, items: Collection[int], at: datetime, *, since: int) -> dict[int, Standing]:
    """How far each of some items is, work alone; gold, trials and repeats take no place.

    Args:
        connection: inside a transaction.
        items: their numbers.
        at: now.
        since: number of the project's change from which on showings count.
    """
    found = dict.fromkeys(items, Standing(0, 0, 0))
    ordered = list(found)
    for start in range(0, len(ordered), VARIABLES):
        which = {"items": ordered[start : start + VARIABLES], "at": at, "since": since}
        rows = connection.execute(_STANDING, which)
        found |= {row.item: Standing(row.judged, row.held, row.skipped) for row in rows}
    return found


def has_room(connection: Connection, project: Project, number: int, at: datetime) -> bool:
    """Whether an item has a place that is neither judged nor held."""
    judged, held, _ = standing(connection, [number], at, since=project.since)[number]
    return judged + held < project.settings.overlap


def open_items(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Let items be shown; gold and trial items are found otherwise."""
    work = [row for row in rows if row["purpose"] == "work"]
    insert_missing(connection, open_item, [
        {"item": row["id"], "project": row["project"], "rank": -row["priority"], "draw": row["draw"]} for row in work
    ])  # fmt: skip


def settle(connection: Connection, project: Project, rows: Iterable[Any], at: datetime, *, reopen: bool = True) -> None:
    """Close items that have all their judgements or were skipped too often, and open those that have not.

    Args:
        connection: inside a transaction.
        project: theirs.
        rows: of the items.
        at: now.
        reopen: some of them may be closed and have to be opened again.
    """
    rows = {row.id: row for row in rows}
    places, settings = standing(connection, rows, at, since=project.since), project.settings
    done = {n for n, (judged, _, skips) in places.items()
            if judged >= settings.overlap or skips >= settings.skips_to_halt}  # fmt: skip
    if done:
        gone = delete(open_item).where(open_item.c.item == bindparam("number"))
        connection.execute(gone, [{"number": number} for number in sorted(done)])
    if reopen:
        open_items(connection, [row._mapping for number, row in rows.items() if number not in done])  # noqa: SLF001


def remaining(connection: Connection, project: Project) -> tuple[int, int]:
    """Work items of a project, and those still open; two counts, however many judgements there are."""
    items, still = connection.execute(_REMAINING, {"project": project.number}).one()
    return items, still


class Progress(NamedTuple):
    """How far a project is.

    Attributes:
        items: work items in the queue.
        done: those with all their judgements.
        halted: those skipped too often.
        judgements: on work items.
        held: places that people hold now.
        people: who judged at least one item.
    """

    items: int
    done: int
    halted: int
    judgements: int
    held: int
    people: int


def progress(connection: Connection, project: Project, at: datetime) -> Progress:
    """How far a project is."""
    items = connection.execute(
        select(item.c.id).where(item.c.project == project.number, item.c.purpose == "work")
    ).scalars().all()  # fmt: skip
    places, settings = standing(connection, items, at, since=project.since), project.settings
    done = {n for n, each in places.items() if each.judged >= settings.overlap}
    halted = {n for n, each in places.items() if each.skipped >= settings.skips_to_halt} - done
    judges = (
        select(func.count(func.distinct(lease.c.annotator)))
        .select_from(lease.join(item, item.c.id == lease.c.item).join(lease_event, lease_event.c.lease == lease.c.id))
        .where(item.c.project == project.number, lease_event.c.outcome == "judged")
    )
    return Progress(
        items=len(items),
        done=len(done),
        halted=len(halted),
        judgements=sum(each.judged for each in places.values()),
        held=sum(each.held for each in places.values()),
        people=number_of(connection, judges),
    )
