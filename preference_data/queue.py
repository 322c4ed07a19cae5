"""Who judges what next, and what became of it.

An item is shown under a lease. It is open until as many people as the project's overlap have judged it; a lease holds
one of those places until it is judged or runs out. Every decision is made inside one write transaction, and writers
come one at a time, so that no place is given twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Engine, func, insert, select

from preference_data import leases, standing
from preference_data.choosing import Why, give_back, next_for
from preference_data.database import reading, writing
from preference_data.errors import QueueError, Refused
from preference_data.leading import Returned, returned
from preference_data.leases import Outcome, Person, Showing
from preference_data.opinions import agrees, check, is_skip, turned
from preference_data.projects import Project, ProjectSettings, change_project, project_named, project_numbered
from preference_data.queries import append, judgements_by_key, lookup, number_of, people_of
from preference_data.queue_schema import item
from preference_data.records import Judgement, Opinion, now, opinion_as_json, opinion_from_json
from preference_data.schema import annotator, comparison
from preference_data.standing import Progress
from preference_data.votes import SET_ASIDE

__all__ = ["Candidate", "Given", "Own", "Person", "Progress", "Queue", "Queued", "Receipt", "Showing", "Taken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A comparison of the store that is to be judged.

    Attributes:
        comparison: its key.
        purpose: `work`; `gold` for one whose answer is known; `trial` for one that people are taught by.
        priority: higher comes first.
        strategy: how it was chosen, such as `random`.
        propensity: chance it had of being chosen, in (0, 1]; 1 where everything was taken.
        needs: what a person must be able to judge, by slice name, such as the language; `person` for one person alone.
        expected: the right answer of gold and trial items.
        why: what people are told of a trial item once they have judged it.
    """

    comparison: str
    purpose: Literal["work", "gold", "trial"] = "work"
    priority: int = 0
    strategy: str = "random"
    propensity: float = 1.0
    needs: Mapping[str, str] = field(default_factory=dict[str, str])
    expected: Opinion | None = None
    why: str = ""


class Queued(NamedTuple):
    """What came of adding items; those known already are left as they are."""

    added: int
    known: int


class Own(NamedTuple):
    """What a person said, and what about."""

    showing: Showing
    judgement: Judgement
    outcome: Outcome


class Taken(NamedTuple):
    """What a person is shown now and next.

    Attributes:
        why: why there is no more.
        items: work items of the project.
        open: those still open.
        back: the person's own judgements that leads sent back, with their reasons; to be corrected.
    """

    project: Project
    showings: list[Showing]
    why: Why
    items: int
    open: int
    back: list[tuple[Own, Returned]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a person said of what they were shown. A skip is a pairwise opinion in every mode.

    Attributes:
        opinion: about the completions in the order of the record.
        as_shown: the opinion is about them as they stood on the screen instead; the page knows no other order.
        seconds: how long it was on the screen.
    """

    opinion: Opinion
    rationale: str = ""
    edit: str = ""
    flags: tuple[str, ...] = ()
    seconds: float = 0.0
    as_shown: bool = False


class Receipt(NamedTuple):
    """A judgement that is stored for good.

    Attributes:
        judgement: its key.
        outcome: `late` where the lease had run out and the place was given away: kept, but used for nothing.
        known: it had been stored before; sending it again changed nothing.
        right: for trial items, whether it was the expected answer.
        why: for trial items, the explanation.
    """

    judgement: str
    outcome: Outcome
    known: bool
    right: bool | None = None
    why: str = ""


class Queue:
    """The queues of a store: `Queue(store.engine)`."""

    def __init__(self, engine: Engine) -> None:
        """Use the store's database."""
        self._engine = engine

    def add(self, project: str, candidates: Sequence[Candidate], *, by: str) -> Queued:
        """Put comparisons into a project's queue.

        Raises:
            QueueError: no such project, a comparison the store does not hold, or a gold item without its answer.
        """
        wanted = {each.comparison: each for each in candidates}
        for each in wanted.values():
            if (each.expected is None) != (each.purpose == "work"):
                raise QueueError(f"item {each.comparison[:12]}: {each.purpose} with the expected answer "
                                 f"{each.expected!r}; expected one for gold and trial items, and none for work")  # fmt: skip
        with writing(self._engine) as connection:
            found = project_named(connection, project)
            numbers = lookup(connection, comparison.c.key, comparison.c.id, wanted)
            if missing := wanted.keys() - numbers.keys():
                raise QueueError(f"comparison {min(missing)[:12]}: not in the store; import or generate it first")
            there = connection.execute(select(item.c.comparison).where(item.c.project == found.number)).scalars()
            known = set(there)
            new = [each for key, each in wanted.items() if numbers[key] not in known]
            first = number_of(connection, select(func.max(item.c.id))) + 1
            rows = [
                _item_row(each, found, numbers[each.comparison]) | {"id": number, "by": by, "at": now()}
                for number, each in enumerate(new, start=first)
            ]
            if rows:
                connection.execute(insert(item), rows)
                standing.open_items(connection, rows)
        return Queued(len(rows), len(wanted) - len(rows))

    def change(
        self, project: str, *, guideline: str | None = None, settings: ProjectSettings | None = None, by: str
    ) -> Project:
        """Give a project other settings or another guideline, from the next showing on.

        Raises:
            QueueError: no such project.
        """
        with writing(self._engine) as connection:
            found = change_project(connection, project, guideline=guideline, settings=settings, by=by)
            rows = connection.execute(select(item).where(item.c.project == found.number, item.c.purpose == "work"))
            standing.settle(connection, found, rows, now())
            return found

    def take(
        self,
        project: str,
        person: str,
        *,
        count: int,
        abilities: Mapping[str, Sequence[str]] | None = None,
        avoid: Mapping[str, Sequence[str]] | None = None,
    ) -> Taken:
        """What a person is shown now and next; asking again gives the same, for longer.

        Args:
            project: its name.
            person: the annotator's handle.
            count: how many to hold at once; the page shows one and prepares the others.
            abilities: languages and other skills, by slice name.
            avoid: what the person does not want to see, such as topics, by slice name.

        Raises:
            QueueError: no such project.
        """
        at = now()
        with writing(self._engine) as connection:
            found = project_named(connection, project)
            who = Person(people_of(connection, {person})[person], person, abilities or {}, avoid or {})
            held = leases.own_open(connection, found.number, who.number, at)
            unwanted = give_back(connection, held, who, at)
            held = [row for row in held if row not in unwanted]
            held = leases.renewed(connection, found, who, held, at=at)
            held = leases.extend(connection, held, at + timedelta(seconds=found.settings.lease_s))
            wanted, why = next_for(connection, found, who, count=count - len(held), at=at)
            given = leases.give(connection, found, who, wanted, at=at)
            shown = leases.showings(connection, [*held, *given][:count])
            back = _sent_back(connection, found, who)
            return Taken(found, shown, why, *standing.remaining(connection, found), back)

    def submit(self, number: int, person: str, given: Given) -> Receipt:
        """Store what a person said of what they were shown under a lease. Sending it again changes nothing.

        Raises:
            Refused: the lease is unknown or another's, was answered otherwise before, or the opinion does not fit.
        """
        at = now()
        with writing(self._engine) as connection:
            asked = _asked(connection, number, person)
            given = _of_record(asked, given)
            if not asked.said:
                other = leases.other_running(connection, asked.lease, at)
                holds = other is not None or leases.runs(asked.lease, at)
                receipt = _keep(connection, asked, given, at, holds=holds)
                if other is not None:
                    leases.end(connection, other.id, "released", None, at=at)
                return receipt
            for key in (_judgement(asked, given, at).key, _judgement(asked, given, at, late=True).key):
                if key in asked.said:
                    return _receipt(asked, key, asked.lease.outcome, given, known=True)
            raise Refused(f"item {number}: you judged it already, and otherwise; correct that judgement instead")

    def correct(self, number: int, person: str, given: Given) -> Receipt:
        """Replace what a person said under a lease; what they said first stays in the log.

        Raises:
            Refused: nothing was said under the lease yet, it is unknown or another's, or the opinion does not fit.
        """
        at = now()
        with writing(self._engine) as connection:
            asked = _asked(connection, number, person)
            if not asked.said:
                raise Refused(f"item {number}: not judged yet; judge it first")
            given = _of_record(asked, given)
            *earlier, last = asked.said
            for supersedes, late in product(("", *earlier), (False, True)):
                if _judgement(asked, given, at, supersedes=supersedes, late=late).key == last:
                    return _receipt(asked, last, asked.lease.outcome, given, known=True)
            return _keep(connection, asked, given, at, holds=asked.lease.outcome == "judged", supersedes=last)

    def release(self, number: int, person: str) -> None:
        """Give an item back that was not judged; somebody else may have it, and this person later on.

        Raises:
            Refused: the lease is unknown or another's.
        """
        with writing(self._engine) as connection:
            asked = _asked(connection, number, person)
            if asked.lease.outcome is None:
                leases.end(connection, number, "released", None, at=now())

    def own(self, project: str, person: str, *, last: int) -> list[Own]:
        """What a person said last in a project, newest first.

        Raises:
            QueueError: no such project.
        """
        with reading(self._engine) as connection:
            found = project_named(connection, project)
            who = lookup(connection, annotator.c.handle, annotator.c.id, {person}).get(person, 0)
            ended = leases.own_ended(connection, found.number, who)
            rows = [row for row in reversed(ended) if row.judgement is not None][:last]
            shown = {each.lease: each for each in leases.showings(connection, rows)}
            said = judgements_by_key(connection, [row.judgement for row in rows])
        return [Own(shown[row.id], said[row.judgement], row.outcome) for row in rows if row.id in shown]

    def remaining(self, project: str) -> tuple[int, int]:
        """Work items of a project, and those still open; cheaper than `progress`.

        Raises:
            QueueError: no such project.
        """
        with reading(self._engine) as connection:
            return standing.remaining(connection, project_named(connection, project))

    def progress(self, project: str) -> Progress:
        """How far a project is.

        Raises:
            QueueError: no such project.
        """
        with reading(self._engine) as connection:
            return standing.progress(connection, project_named(connection, project), now())


def _sent_back(connection: Connection, project: Project, who: Person) -> list[tuple[Own, Returned]]:
    found = returned(connection, project.number, who.number)
    if not found:
        return []
    notes = {each.lease: each for each in found}
    rows = [row for row in leases.own_ended(connection, project.number, who.number) if row.id in notes]
    said = judgements_by_key(connection, [row.judgement for row in rows])
    shown = {each.lease: each for each in leases.showings(connection, rows)}
    return [(Own(shown[row.id], said[row.judgement], row.outcome), notes[row.id]) for row in rows if row.id in shown]


def _item_row(each: Candidate, project: Project, number: int) -> dict[str, Any]:
    expected = None if each.expected is None else {"opinion": opinion_as_json(each.expected), "why": each.why}
    return {
        "project": project.number,
        "comparison": number,
        "purpose": each.purpose,
        "priority": each.priority,
        "draw": int(leases.chance("draw", project.name, each.comparison) * 2**31),
        "strategy": each.strategy,
        "propensity": each.propensity,
        "needs": dict(each.needs),
        "expected": expected,
    }


class _Asked(NamedTuple):
    """What a person answers: the lease, its item, and all that they said under it, by key, in order."""

    lease: Any
    item: Any
    project: Project
    key: str
    person: str
    said: tuple[str, ...]


def _asked(connection: Connection, number: int, person: str) -> _Asked:
    row = leases.lease_row(connection, number)
    if row is None or row.handle != person:
        raise Refused(f"item {number}: not shown to {person!r}; load the page again to see what is")
    which = connection.execute(select(item).where(item.c.id == row.item)).one()
    project = project_numbered(connection, which.project)
    key = leases.subject(connection, row.item)
    if key is None:
        raise Refused(f"item {number}: its text was erased; go on with the next one")
    return _Asked(row, which, project, key, person, leases.said_under(connection, number))


def _of_record(asked: _Asked, given: Given) -> Given:
    """What was given, its opinion fitting and about the completions in the order of the record."""
    check(given.opinion, asked.project, len(asked.lease.shown_order))
    if not given.as_shown:
        return given
    return replace(given, opinion=turned(given.opinion, asked.lease.shown_order), as_shown=False)


def _keep(
    connection: Connection, asked: _Asked, given: Given, at: datetime, *, holds: bool, supersedes: str = ""
) -> Receipt:
    """Store an opinion, and what it does to its item's places."""
    takes_place = asked.lease.purpose == "work" and not is_skip(given.opinion)
    late = takes_place and not holds and not standing.has_room(connection, asked.project, asked.lease.item, at)
    said = _judgement(asked, given, at, supersedes=supersedes, late=late)
    outcome: Outcome = "late" if late else "skipped" if is_skip(given.opinion) else "judged"
    people = {asked.person: asked.lease.annotator}
    append(connection, {}, {said.key: said}, {asked.key: asked.item.comparison}, people=people)
    leases.end(connection, asked.lease.id, outcome, said.key, at=at)
    if asked.lease.purpose == "work":
        standing.settle(connection, asked.project, [asked.item], at, reopen=bool(supersedes))
    return _receipt(asked, said.key, outcome, given, known=False)


def _judgement(asked: _Asked, given: Given, at: datetime, *, supersedes: str = "", late: bool = False) -> Judgement:
    purpose = asked.lease.purpose
    own = (purpose,) if purpose in SET_ASIDE else ()
    return Judgement(
        comparison=asked.key,
        annotator=asked.person,
        opinion=given.opinion,
        at=at,
        rationale=given.rationale,
        edit=given.edit,
        flags=(*given.flags, *own, *(("late",) if late else ())),
        shown_order=tuple(asked.lease.shown_order),
        guideline=f"{asked.project.name}/{asked.lease.change}",
        supersedes=supersedes,
        extra={"lease": asked.lease.id, "seconds": round(given.seconds, 1)},
    )


def _receipt(asked: _Asked, key: str, outcome: Outcome, given: Given, *, known: bool) -> Receipt:
    if asked.lease.purpose != "trial":
        return Receipt(key, outcome, known)
    expected = asked.item.expected
    return Receipt(key, outcome, known, agrees(opinion_from_json(expected["opinion"]), given.opinion), expected["why"])
