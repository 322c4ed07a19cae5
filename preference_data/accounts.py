"""Accounts: who may log in, as what, and what they can judge. Passwords are kept as Argon2id hashes, sessions as digests.

Who somebody is only ever grows, change by change; a password or session is no evidence and is replaced.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import BoundedSemaphore
from typing import Any, Literal, NamedTuple, get_args

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from sqlalchemy import Connection, Engine, delete, exists, func, insert, select, update

from preference_data.audit import record
from preference_data.database import reading, writing
from preference_data.errors import AccessRefused, QueueError
from preference_data.machines import is_machine
from preference_data.queries import lookup, number_of, people_of
from preference_data.queue_schema import account_change, credential, session
from preference_data.records import now
from preference_data.schema import annotator

Role = Literal["annotator", "lead", "admin"]
State = Literal["active", "paused", "closed"]
SHORTEST_PASSWORD = 12
LONGEST_PASSWORD = 1000
SESSION_H = 12

_HASHER = PasswordHasher()
_FEW_AT_ONCE = BoundedSemaphore(2)
"""Each hash takes 64 MiB while it is computed; many people logging in at once would take all there is."""
# Verified where there is no such account, so that an answer takes as long as for a wrong password.
_NOBODY = _HASHER.hash(secrets.token_hex())
_LATER = account_change.alias()
_LAST = select(func.max(_LATER.c.number)).where(_LATER.c.annotator == account_change.c.annotator).scalar_subquery()
_ACCOUNTS = (
    select(account_change, annotator.c.handle)
    .join(annotator, annotator.c.id == account_change.c.annotator)
    .where(account_change.c.number == _LAST)
    .order_by(account_change.c.annotator)
)


class Account(NamedTuple):
    """A person who may log in.

    Attributes:
        number: the store's number of the annotator.
        change: number of the account's last change, from 1.
        abilities: what the person can judge, by slice name, such as the languages.
        avoid: what the person does not want to see, by slice name, such as topics.
    """

    handle: str
    number: int
    change: int
    role: Role
    state: State
    abilities: Mapping[str, tuple[str, ...]]
    avoid: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an account is to be; None leaves it as it is."""

    role: Role | None = None
    state: State | None = None
    abilities: Mapping[str, tuple[str, ...]] | None = None
    avoid: Mapping[str, tuple[str, ...]] | None = None
    reason: str = field(default="")


class Accounts:
    """The accounts of a store: `Accounts(store.engine)`."""

    def __init__(self, engine: Engine) -> None:
        """Use the store's database."""
        self._engine = engine

    def create(self, handle: str, password: str | None, role: Role = "annotator", *, by: str) -> Account:
        """Let somebody log in.

        Args:
            handle: the name they log in with.
            password: None for somebody whom another system lets in, with `begin`.
            role: what they may do.
            by: who lets them.

        Raises:
            QueueError: there is such an account, or the name, role or password is unusable.
        """
        if not handle.strip() or handle != handle.strip():
            raise QueueError(f"name {handle!r}: expected some text without spaces around it")
        if is_machine(handle):
            raise QueueError(f"name {handle!r}: judgements under it would count as a machine's; give another name")
        if role not in get_args(Role):
            raise QueueError(f"role {role!r}: expected one of {', '.join(get_args(Role))}")
        hashed = None if password is None else _hash(password)
        with writing(self._engine) as connection:
            if _find(connection, handle) is not None:
                raise QueueError(f"account {handle!r}: exists already; change it, or give another name")
            number = people_of(connection, {handle})[handle]
            facts: dict[str, dict[str, list[str]]] = {"abilities": {}, "avoid": {}}
            _add(connection, number, {"role": role, "state": "active", "facts": facts, "reason": ""}, by=by)
            if hashed:
                connection.execute(insert(credential), {"annotator": number, "hash": hashed})
            record(connection, "account created", {"account": handle, "role": role}, by=by)
            return _get(connection, handle)

    def change(self, handle: str, wanted: Wanted, *, by: str) -> Account:
        """Change what an account is; one that is closed is logged out everywhere.

        Raises:
            QueueError: no such account, or it is the last active admin and would no longer be.
        """
        with writing(self._engine) as connection:
            found = _get(connection, handle)
            after = found._replace(
                role=wanted.role or found.role,
                state=wanted.state or found.state,
                abilities=found.abilities if wanted.abilities is None else wanted.abilities,
                avoid=found.avoid if wanted.avoid is None else wanted.avoid,
            )
            if after == found:
                return found
            facts = {"abilities": _lists(after.abilities), "avoid": _lists(after.avoid)}
            row = {"role": after.role, "state": after.state, "facts": facts, "reason": wanted.reason}
            _add(connection, found.number, row, by=by)
            if after.state == "closed":
                connection.execute(delete(session).where(session.c.annotator == found.number))
            left = [each for each in _all(connection) if each.role == "admin" and each.state == "active"]
            if found.role == "admin" and found.state == "active" and not left:
                raise QueueError(f"account {handle!r}: the last active admin; make somebody else admin first")
            record(connection, "account changed", {"account": handle, **row}, by=by)
            return _get(connection, handle)

    def avoid(self, handle: str, name: str, value: str) -> Account:
        """Show somebody nothing more of a slice, such as a topic, because they asked for it.

        Raises:
            QueueError: no such account.
        """
        with reading(self._engine) as connection:
            avoided = dict(_get(connection, handle).avoid)
        avoided[name] = tuple(sorted({*avoided.get(name, ()), value}))
        return self.change(handle, Wanted(avoid=avoided, reason="asked for while judging"), by=handle)

    def set_password(self, handle: str, password: str, *, by: str) -> None:
        """Replace a password; all sessions of the account end.

        Raises:
            QueueError: no such account, or the password is unusable.
        """
        hashed = _hash(password)
        with writing(self._engine) as connection:
            found = _get(connection, handle)
            connection.execute(delete(credential).where(credential.c.annotator == found.number))
            connection.execute(insert(credential), {"annotator": found.number, "hash": hashed})
            connection.execute(delete(session).where(session.c.annotator == found.number))
            record(connection, "password set", {"account": handle}, by=by)

    def any(self) -> bool:
        """Whether there are accounts at all."""
        with reading(self._engine) as connection:
            return bool(connection.execute(select(exists(select(account_change.c.number)))).scalar())

    def all(self) -> list[Account]:
        """All accounts, in the order they were made."""
        with reading(self._engine) as connection:
            return _all(connection)

    def log_in(self, handle: str, password: str) -> str:
        """Begin a session; its secret token.

        Raises:
            AccessRefused: no such account, another password, or the account is closed; which of them is not told.
        """
        with reading(self._engine) as connection:
            found = _find(connection, handle)
            wanted = select(credential.c.hash).where(credential.c.annotator == (found.number if found else 0))
            hashed = connection.execute(wanted).scalar()
        if not _matches(hashed or _NOBODY, password) or found is None or found.state == "closed":
            raise AccessRefused("name or password: not known together; try again, or ask whoever leads the project")
        return self.begin(handle)

    def begin(self, handle: str) -> str:
        """Begin a session for somebody whose identity was proved otherwise; its secret token.

        Raises:
            QueueError: no such account.
            AccessRefused: it is closed.
        """
        token = secrets.token_urlsafe(32)
        at = now()
        with writing(self._engine) as connection:
            found = _get(connection, handle)
            if found.state == "closed":
                raise AccessRefused(f"account {handle!r}: closed; ask whoever leads the project")
            connection.execute(delete(session).where(session.c.until <= at))
            row = {"token": _digest(token), "annotator": found.number, "until": at + timedelta(hours=SESSION_H)}
            connection.execute(insert(session), row)
            record(connection, "logged in", {}, by=handle)
        return token

    def who(self, token: str) -> Account | None:
        """Whose session it is, None where it is unknown or over; one that is used goes on."""
        at = now()
        with reading(self._engine) as connection:
            known = session.c.token == _digest(token)
            row = connection.execute(select(session.c.annotator, session.c.until).where(known)).first()
            if row is None or row.until <= at:
                return None
            account = connection.execute(_ACCOUNTS.where(account_change.c.annotator == row.annotator)).one()
        if row.until < at + timedelta(hours=SESSION_H / 2):
            self._prolong(token, at)
        return _account(account)

    def log_out(self, token: str) -> None:
        """End a session."""
        with writing(self._engine) as connection:
            connection.execute(delete(session).where(session.c.token == _digest(token)))

    def _prolong(self, token: str, at: datetime) -> None:
        until = at + timedelta(hours=SESSION_H)
        with writing(self._engine) as connection:
            connection.execute(update(session).where(session.c.token == _digest(token)).values(until=until))


def _hash(password: str) -> str:
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise QueueError(f"password: got {len(password)} characters; expected {SHORTEST_PASSWORD} or more, such as four "
                         "unrelated words")  # fmt: skip
    with _FEW_AT_ONCE:
        return _HASHER.hash(password)


def _matches(hashed: str, password: str) -> bool:
    try:
        with _FEW_AT_ONCE:
            return len(password) <= LONGEST_PASSWORD and _HASHER.verify(hashed, password)
    except VerificationError:
        return False


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _add(connection: Connection, number: int, row: dict[str, Any], *, by: str) -> None:
    last = number_of(connection, select(func.max(_LATER.c.number)).where(_LATER.c.annotator == number))
    connection.execute(insert(account_change), row | {"annotator": number, "number": last + 1, "by": by, "at": now()})


def _find(connection: Connection, handle: str) -> Account | None:
    number = lookup(connection, annotator.c.handle, annotator.c.id, {handle}).get(handle, 0)
    row = connection.execute(_ACCOUNTS.where(account_change.c.annotator == number)).first()
    return None if row is None else _account(row)


def _get(connection: Connection, handle: str) -> Account:
    found = _find(connection, handle)
    if found is None:
        names = ", ".join(each.handle for each in _all(connection))
        raise QueueError(f"account {handle!r}: unknown; there are: {names or 'none yet'}")
    return found


def _all(connection: Connection) -> list[Account]:
    return [_account(row) for row in connection.execute(_ACCOUNTS)]


def _account(row: Any) -> Account:
    abilities, avoid = (
        {name: tuple(values) for name, values in row.facts.get(part, {}).items()} for part in ("abilities", "avoid")
    )
    return Account(row.handle, row.annotator, row.number, row.role, row.state, abilities, avoid)


def _lists(values: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    return {name: list(each) for name, each in values.items()}
