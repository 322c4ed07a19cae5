"""What people asked the runner to do.

The page files requests; the one runner claims them and says how they ended. Rows are only ever added: a request's
state is its latest event.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Engine, func, insert, select

from preference_data import schema
from preference_data.database import reading, writing
from preference_data.errors import StoreError
from preference_data.queries import number_of
from preference_data.records import now

Kind = Literal["import", "freeze", "round", "promote", "rollback", "threshold", "generate", "explain"]
State = Literal["filed", "claimed", "done", "failed"]


class Request(NamedTuple):
    """One thing asked for and how far it is.

    Attributes:
        number: position among all requests, from 1.
        key: chosen by whoever asks; filing it twice files it once.
        by, at: who asked, and when (UTC).
        state, actor, message, since: what became of it last: who brought it into this state (whoever asked, or the
            runner), what they had to say, such as why it failed, and when (UTC).
    """

    number: int
    key: str
    kind: Kind
    payload: Mapping[str, Any]
    by: str
    at: datetime
    state: State
    actor: str
    message: str
    since: datetime


_EVENT = schema.request_event.alias()
_LAST = select(func.max(_EVENT.c.number)).where(_EVENT.c.request == schema.request.c.id).scalar_subquery()
_REQUESTS = (
    select(
        schema.request,
        schema.request_event.c.state,
        schema.request_event.c.by,
        schema.request_event.c.message,
        schema.request_event.c.at,
    )
    .join(schema.request_event, schema.request_event.c.request == schema.request.c.id)
    .where(schema.request_event.c.number == _LAST)
    .order_by(schema.request.c.id)
)


class Requests:
    """The requests of a store: `Requests(store.engine)`."""

    def __init__(self, engine: Engine) -> None:
        """Use the store's database."""
        self._engine = engine

    def file(self, key: str, kind: Kind, payload: Mapping[str, Any], *, by: str) -> Request:
        """Ask for something. The same again changes nothing and returns the request as it stands.

        Raises:
            StoreError: the kind is unknown, the key stands for another request, or the database refused.
        """
        if kind not in schema.REQUEST_KINDS:
            raise StoreError(f"request kind {kind!r}: expected one of {', '.join(schema.REQUEST_KINDS)}")
        with writing(self._engine) as connection:
            found = _find(connection, key)
            if found is None:
                number = number_of(connection, select(func.max(schema.request.c.id))) + 1
                row = {"id": number, "key": key, "kind": kind, "payload": dict(payload), "by": by, "at": now()}
                connection.execute(insert(schema.request), row)
                _add_event(connection, number, state="filed", by=by)
            elif (found.kind, found.payload) != (kind, dict(payload)):
                raise StoreError(f"request {key!r}: stands for another {found.kind} request; file this under a new key")
            return _get(connection, key)

    def claim(self, by: str) -> Request | None:
        """Take the oldest request nobody has taken; None where there is none. No two callers get the same."""
        with writing(self._engine) as connection:
            row = connection.execute(_REQUESTS.where(schema.request_event.c.state == "filed").limit(1)).first()
            if row is None:
                return None
            _add_event(connection, row[0], state="claimed", by=by)
            return _get(connection, row[1])

    def finish(self, key: str, *, by: str, error: str = "") -> Request:
        """Say that a claimed request is done or, with an error, failed.

        Raises:
            StoreError: the request is unknown, or not claimed by this runner.
        """
        with writing(self._engine) as connection:
            found = _get(connection, key)
            if (found.state, found.actor) != ("claimed", by):
                raise StoreError(
                    f"request {key!r}: {found.state} by {found.actor!r}; expected it claimed by {by!r}; "
                    "claim a request before finishing it"
                )
            _add_event(connection, found.number, state="failed" if error else "done", by=by, message=error)
            return _get(connection, key)

    def refile(self, *, by: str, message: str) -> list[Request]:
        """Put back all claimed requests, because their runner is gone; a runner does so when it starts."""
        with writing(self._engine) as connection:
            rows = connection.execute(_REQUESTS.where(schema.request_event.c.state == "claimed")).all()
            for row in rows:
                _add_event(connection, row[0], state="filed", by=by, message=message)
            return [_get(connection, row[1]) for row in rows]

    def get(self, key: str) -> Request:
        """One request.

        Raises:
            StoreError: it is unknown.
        """
        with reading(self._engine) as connection:
            return _get(connection, key)

    def all(self) -> list[Request]:
        """All requests, oldest first."""
        with reading(self._engine) as connection:
            return [Request(*row) for row in connection.execute(_REQUESTS)]


def _find(connection: Connection, key: str) -> Request | None:
    row = connection.execute(_REQUESTS.where(schema.request.c.key == key)).first()
    return Request(*row) if row else None


def _get(connection: Connection, key: str) -> Request:
    found = _find(connection, key)
    if found is None:
        raise StoreError(f"request {key!r}: not in the store; check the key")
    return found


def _add_event(connection: Connection, number: int, *, state: State, by: str, message: str = "") -> None:
    events = schema.request_event.c
    last = number_of(connection, select(func.max(events.number)).where(events.request == number))
    row = {"request": number, "number": last + 1, "state": state, "by": by, "message": message, "at": now()}
    connection.execute(insert(schema.request_event), row)
