"""What leads do about items: decide a dispute, or send a judgement back to whoever gave it, with a reason."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, bindparam, exists, func, insert, select

from preference_data import leases, schema
from preference_data.audit import record
from preference_data.database import insert_missing, reading, writing
from preference_data.errors import QueueError
from preference_data.leases import LAST_WORD
from preference_data.opinions import ADJUDICATED, check, is_skip
from preference_data.projects import project_named
from preference_data.queries import append, number_of
from preference_data.queue_schema import item, lease, lease_event, note
from preference_data.records import Comparison, Judgement, Opinion, digest, now


class Returned(NamedTuple):
    """A judgement that was sent back and not corrected since.

    Attributes:
        note: number of the note that says so.
        lease: under which it was given.
        reason: what the person is told.
    """

    note: int
    lease: int
    reason: str
    at: datetime


class Comment(NamedTuple):
    """What a lead noted on an item, for other leads."""

    text: str
    by: str
    at: datetime


class Leading:
    """The leads' side of the queues of a store: `Leading(store.engine)`."""

    def __init__(self, engine: Engine) -> None:
        """Use the store's database."""
        self._engine = engine

    def comparison(self, project: str, number: int) -> Comparison:
        """What an item asks.

        Raises:
            QueueError: no such item in the project, or a text of it was erased.
        """
        with reading(self._engine) as connection:
            return _item(connection, project, number)[1]

    def adjudicate(self, project: str, number: int, opinion: Opinion, *, why: str, by: str) -> None:
        """Decide an item: at a freeze this opinion takes the place of all others; a later one replaces it.

        Raises:
            QueueError: no such item, the opinion does not fit, or it is a skip, which decides nothing.
        """
        if is_skip(opinion):
            raise QueueError("decision: got a skip; expected an opinion, which takes the place of all others")
        at = now()
        with writing(self._engine) as connection:
            found = project_named(connection, project)
            key, comparison, stored = _item(connection, project, number)
            check(opinion, found, len(comparison.completions))
            said = Judgement(
                comparison=key,
                annotator=by,
                opinion=opinion,
                at=at,
                rationale=why,
                flags=(ADJUDICATED,),
                guideline=found.label,
                supersedes=_last_adjudication(connection, stored),
            )
            append(connection, {}, {said.key: said}, {key: stored})
            record(connection, "adjudicated", {"project": project, "item": number, "judgement": said.key}, by=by)

    def send_back(self, project: str, number: int, person: str, *, reason: str, by: str) -> None:
        """Ask a person to judge an item again, telling them why.

        Raises:
            QueueError: the person has not judged that item, or no reason is given.
        """
        if not reason.strip():
            raise QueueError("reason: got none; expected what the person is to look at again")
        with writing(self._engine) as connection:
            found = project_named(connection, project)
            wanted = (
                select(lease.c.id)
                .select_from(lease)
                .join(lease_event, LAST_WORD)
                .join(item, item.c.id == lease.c.item)
                .join(schema.annotator, schema.annotator.c.id == lease.c.annotator)
                .where(item.c.project == found.number, item.c.id == number, schema.annotator.c.handle == person)
                .where(lease_event.c.judgement.is_not(None), lease.c.purpose == "work")
                .order_by(lease.c.id.desc())
            )
            which = connection.execute(wanted).scalars().first()
            if which is None:
                raise QueueError(f"item {number}: {person!r} has not judged it; expected somebody who has")
            _add_note(connection, which, "returned", reason, by=by)
            record(connection, "sent back", {"project": project, "item": number, "person": person}, by=by)

    def comment(self, project: str, number: int, text: str, *, by: str) -> None:
        """Note something on an item that was shown to somebody; leads alone see it.

        Raises:
            QueueError: nobody was shown the item yet, or there is no text.
        """
        if not text.strip():
            raise QueueError("comment: got no text; expected some")
        with writing(self._engine) as connection:
            _item(connection, project, number)
            which = connection.execute(select(func.max(lease.c.id)).where(lease.c.item == number)).scalar()
            if which is None:
                raise QueueError(f"item {number}: shown to nobody yet; comment on it once somebody has seen it")
            _add_note(connection, which, "comment", text, by=by)

    def comments(self, project: str, number: int) -> list[Comment]:
        """What leads noted on an item, oldest first.

        Raises:
            QueueError: no such item in the project.
        """
        wanted = (
            select(schema.text.c.body, note.c.by, note.c.at)
            .select_from(note)
            .join(lease, lease.c.id == note.c.lease)
            .join(schema.text, schema.text.c.digest == note.c.body)
            .where(lease.c.item == number, note.c.kind == "comment")
            .order_by(note.c.id)
        )
        with reading(self._engine) as connection:
            _item(connection, project, number)
            return [Comment(row.body or "", row.by, row.at) for row in connection.execute(wanted)]


_RETURNED = (
    select(note.c.id, note.c.lease, schema.text.c.body, note.c.at)
    .select_from(note)
    .join(lease, lease.c.id == note.c.lease)
    .join(item, item.c.id == lease.c.item)
    .join(schema.text, schema.text.c.digest == note.c.body)
    .where(
        lease.c.annotator == bindparam("person"),
        item.c.project == bindparam("project"),
        note.c.kind == "returned",
        ~exists().where(lease_event.c.lease == note.c.lease, lease_event.c.at > note.c.at),
    )
    .order_by(note.c.id)
)


def returned(connection: Connection, project: int, person: int) -> list[Returned]:
    """A person's judgements in a project that were sent back and not corrected since, oldest first."""
    rows = connection.execute(_RETURNED, {"person": person, "project": project})
    return [Returned(row.id, row.lease, row.body or "", row.at) for row in rows]


def _add_note(connection: Connection, which: int, kind: str, body: str, *, by: str) -> None:
    insert_missing(connection, schema.text, [{"digest": digest(body), "body": body}])
    number = number_of(connection, select(func.max(note.c.id))) + 1
    row = {"id": number, "lease": which, "kind": kind, "body": digest(body), "by": by, "at": now()}
    connection.execute(insert(note), row)


def _item(connection: Connection, project: str, number: int) -> tuple[str, Comparison, int]:
    """An item's comparison: its key, the record, and the store's number."""
    found = project_named(connection, project)
    row: Any = connection.execute(select(item).where(item.c.id == number, item.c.project == found.number)).first()
    if row is None:
        raise QueueError(f"item {number}: not in project {project!r}; the list of disputes has the numbers")
    what = leases.comparisons_of(connection, {number}).get(number)
    if what is None:
        raise QueueError(f"item {number}: its text was erased")
    return *what, row.comparison


def _last_adjudication(connection: Connection, comparison: int) -> str:
    rows = connection.execute(
        select(schema.judgement.c.key, schema.judgement.c.flags)
        .where(schema.judgement.c.comparison == comparison)
        .order_by(schema.judgement.c.seq)
    )
    return next((row.key for row in reversed(rows.all()) if ADJUDICATED in row.flags), "")
