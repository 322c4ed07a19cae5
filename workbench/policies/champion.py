"""The champion: a pointer to the promoted policy, moved by compare-and-set, with all its history."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from sqlalchemy import Connection, insert, select, update

from workbench.errors import PolicyError
from workbench.schema import alias, alias_event, timestamp

CHAMPION = "champion"


class Move(NamedTuple):
    """One move of the champion.

    Attributes:
        old: digest of the champion before; None for the first.
        new: digest of the champion after.
        round: digest of the round that promoted it; None where a person did.
        at: UTC, ISO 8601.
    """

    kind: Literal["promote", "rollback"]
    old: str | None
    new: str
    round: str | None
    reason: str
    by: str
    at: str


def current(connection: Connection) -> str | None:
    """Digest of the champion; None where there is none yet."""
    return connection.execute(select(alias.c.policy).where(alias.c.name == CHAMPION)).scalar_one_or_none()


def moves(connection: Connection) -> list[Move]:
    """All moves, oldest first."""
    columns = [alias_event.c[name] for name in Move._fields]
    query = select(*columns).where(alias_event.c.name == CHAMPION).order_by(alias_event.c.id)
    return [Move(*row) for row in connection.execute(query)]


def move(
    connection: Connection,
    kind: Literal["promote", "rollback"],
    new: str,
    *,
    expected: str | None,
    reason: str,
    by: str,
    round_digest: str | None = None,
) -> None:
    """Point the champion at another policy if it still is the expected one.

    Raises:
        PolicyError: the champion is another than expected.
    """
    old = current(connection)
    if old != expected:
        raise PolicyError(
            f"champion is {_short(old)}, expected {_short(expected)}: somebody moved it meanwhile; look at "
            "`workbench policies`, then promote again if it still should move"
        )
    pointed = {"name": CHAMPION, "policy": new}
    statement = insert(alias) if old is None else update(alias).where(alias.c.name == CHAMPION)
    connection.execute(statement.values(pointed))
    event = {"name": CHAMPION, "kind": kind, "old": old, "new": new, "round": round_digest, "reason": reason, "by": by}
    connection.execute(insert(alias_event).values(event | {"at": timestamp()}))


def predecessors(history: Sequence[Move]) -> list[str]:
    """The champions before the present one, oldest first; what was rolled back from does not count.

    A promotion puts a policy on a stack, a rollback takes off everything above its goal.
    """
    stack: list[str] = []
    for step in history:
        if step.kind == "rollback" and step.new in stack:
            while stack[-1] != step.new:
                stack.pop()
        elif stack[-1:] != [step.new]:
            stack.append(step.new)
    return stack[:-1]


def _short(digest: str | None) -> str:
    return "not set" if digest is None else digest[:12]
