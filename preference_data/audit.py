"""The audit log: who did what that others must be able to look up, oldest first. It only grows."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, func, insert, select

from preference_data.database import reading
from preference_data.queries import number_of
from preference_data.queue_schema import audit
from preference_data.records import now


class Entry(NamedTuple):
    """Something that was done."""

    action: str
    facts: Mapping[str, Any]
    by: str
    at: datetime


def record(connection: Connection, action: str, facts: Mapping[str, Any], *, by: str) -> None:
    """Write an entry inside the transaction of what it tells of."""
    number = number_of(connection, select(func.max(audit.c.id))) + 1
    connection.execute(insert(audit), {"id": number, "action": action, "facts": dict(facts), "by": by, "at": now()})


def entries(engine: Engine, *, last: int, action: str = "") -> list[Entry]:
    """The last entries, or the last of an action, newest first."""
    wanted = select(audit).where(audit.c.action == action) if action else select(audit)
    with reading(engine) as connection:
        rows = connection.execute(wanted.order_by(audit.c.id.desc()).limit(last)).all()
    return [Entry(row.action, row.facts, row.by, row.at) for row in rows]
