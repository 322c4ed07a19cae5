"""What a person is shown next: trial items first, then work with gold items and repeats among it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine, select

from preference_data import leases
from preference_data.database import writing
from preference_data.leases import Held, Person, Purpose, chance
from preference_data.opinions import agrees
from preference_data.projects import Project, project_named
from preference_data.queries import judgements_by_key, people_of
from preference_data.queue_schema import item
from preference_data.records import now, opinion_from_json

Why = Literal["", "nothing open", "trial failed", "trial under way", "daily cap", "closed"]
Wanted = tuple[int, Purpose, tuple[int, ...]]
"""An item, why it is shown, and the order of its answers."""


def next_for(
    connection: Connection, project: Project, person: Person, *, count: int, at: datetime
) -> tuple[list[Wanted], Why]:
    """Up to `count` items, and why there are fewer."""
    settings = project.settings
    if settings.closed:
        return [], "closed"
    trial = leases.special(connection, project, person, "trial", at=at)
    if trial:
        return [_first_time(row, person) for row in trial[: max(count, 0)]], ""
    why = _trial_verdict(connection, project, person, at)
    if why:
        return [], why
    if settings.daily_cap:
        today = datetime.combine(at.date(), datetime.min.time(), UTC)
        shown = leases.shown_since(connection, project.number, person.number, today)
        if shown >= settings.daily_cap:
            return [], "daily cap"
        count = min(count, settings.daily_cap - shown)
    found = _mixed(connection, project, person, count=count, at=at)
    return found, "" if len(found) >= count else "nothing open"


def give_back_avoided(engine: Engine, project: str, handle: str, avoid: Mapping[str, Sequence[str]]) -> list[int]:
    """Give back what a person holds in a project and does not want to see; the leases that ended.

    Raises:
        QueueError: no such project.
    """
    at = now()
    with writing(engine) as connection:
        found = project_named(connection, project)
        person = Person(people_of(connection, {handle})[handle], handle, {}, avoid)
        held = leases.own_open(connection, found.number, person.number, at)
        return [row.id for row in give_back(connection, held, person, at)]


def give_back(connection: Connection, held: Sequence[Held], person: Person, at: datetime) -> list[Held]:
    """Give back those of a person's leases that they do not want to see; which."""
    kept = {row.id for row in leases.wanted_by(connection, held, person)}
    given = [row for row in held if row.id not in kept]
    for row in given:
        leases.end(connection, row.id, "released", None, at=at)
    return given


def _mixed(connection: Connection, project: Project, person: Person, *, count: int, at: datetime) -> list[Wanted]:
    """Work, with the shares of gold items and repeats that the project asks for."""
    settings = project.settings
    special = settings.gold_share or settings.repeat_share
    before = leases.shown_since(connection, project.number, person.number) if special else 0
    work = leases.fresh(connection, project, person, at)
    gold = iter(leases.special(connection, project, person, "gold", at=at) if settings.gold_share else [])
    repeats = 0
    found: list[Wanted] = []
    for turn in range(before, before + count):
        drawn = chance("purpose", project.name, person.handle, turn)
        if drawn < settings.gold_share and (row := next(gold, None)) is not None:
            found.append(_first_time(row, person))
            continue
        if settings.gold_share <= drawn < settings.gold_share + settings.repeat_share and not repeats:
            old = leases.to_repeat(connection, project, person)
            if old is not None:
                repeats += 1
                found.append((old.item, "repeat", tuple(reversed(old.shown_order))))
                continue
        row = next(work, None)
        if row is None:
            break
        found.append(_first_time(row, person))
    return found


def _trial_verdict(connection: Connection, project: Project, person: Person, at: datetime) -> Why:
    """Whether the trial items let a person begin."""
    if not project.settings.pass_mark:
        return ""
    if any(row.purpose == "trial" for row in leases.own_open(connection, project.number, person.number, at)):
        return "trial under way"
    right, given = trial_score(connection, project, person.number)
    return "trial failed" if given and right < project.settings.pass_mark * given else ""


def trial_score(connection: Connection, project: Project, person: int) -> tuple[int, int]:
    """Trial items a person got right, and how many were answered; a correction comes after the answer was told."""
    ended = leases.own_ended(connection, project.number, person, "trial")
    ended = [row for row in ended if row.change >= project.since]
    first = {row.item: said[0] for row in ended if (said := leases.said_under(connection, row.id))}
    said = judgements_by_key(connection, first.values())
    wanted = connection.execute(select(item.c.id, item.c.expected).where(item.c.id.in_(first))).all()
    right = [agrees(opinion_from_json(row.expected["opinion"]), said[first[row.id]].opinion) for row in wanted]
    return sum(right), len(right)


def _first_time(row: Any, person: Person) -> Wanted:
    return row.id, row.purpose, leases.side_order(person.handle, str(row.comparison), row.answers)
