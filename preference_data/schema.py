"""The tables of the preference store.

What people wrote (turns, answers, rationales, edits, further facts) is in `text` alone, by digest, and who they are in
`annotator` alone: erasing either breaks nothing else. All other tables only ever grow; triggers of the migrations
refuse the rest. Rows are numbered by the store, without gaps.
"""

import json
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

REQUEST_KINDS = ("import", "freeze", "round", "promote", "rollback", "threshold", "generate", "explain")
REQUEST_STATES = ("filed", "claimed", "done", "failed")
_DECODER = json.JSONDecoder()
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def ascii_json(value: Any) -> str:
    """One ASCII text per JSON value, so that any Python text fits any database: PostgreSQL refuses NUL characters."""
    return _ENCODER.encode(value)


class Json(TypeDecorator[Any]):
    """A JSON value, also a plain string that people chose, kept as ASCII text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """To the database."""
        return None if value is None else ascii_json(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """From the database."""
        return None if value is None else _DECODER.decode(value)


class Utc(TypeDecorator[datetime]):
    """A time in UTC, as ISO 8601 text to the microsecond: sortable, and the same in every database."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """To the database."""
        return None if value is None else value.isoformat(timespec="microseconds")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """From the database."""
        return None if value is None else datetime.fromisoformat(value)


class Words(TypeDecorator[str]):
    """Any text at all, lone surrogates included, as UTF-8 bytes."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        """To the database."""
        return None if value is None else value.encode("utf-8", "surrogatepass")

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        """From the database."""
        return None if value is None else bytes(value).decode("utf-8", "surrogatepass")


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    """A column that holds one of a few words."""
    return CheckConstraint(f"{column} IN ({', '.join(repr(value) for value in values)})", name=column)


def _digest(column: str) -> CheckConstraint:
    return CheckConstraint(f"length({column}) = 64", name=column)


text = Table(
    "text",
    metadata,
    Column("digest", Text, nullable=False),
    Column("body", Words),
    PrimaryKeyConstraint("digest"),
    _digest("digest"),
    sqlite_strict=True,
)
prompt = Table(
    "prompt",
    metadata,
    Column("key", Text, nullable=False),
    Column("turns", Json, nullable=False),
    PrimaryKeyConstraint("key"),
    _digest("key"),
    sqlite_strict=True,
)
annotator = Table(
    "annotator",
    metadata,
    Column("id", Integer, nullable=False, autoincrement=False),
    Column("handle", Json, nullable=False),
    Column("identity", Json),
    Column("group", Json),
    Column("erased_at", Utc),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("handle"),
    CheckConstraint("erased_at IS NULL OR identity IS NULL", name="erased"),
    sqlite_strict=True,
)
comparison = Table(
    "comparison",
    metadata,
    Column("id", Integer, nullable=False, autoincrement=False),
    Column("key", Text, nullable=False),
    Column("prompt", Text, ForeignKey("prompt.key"), nullable=False),
    Column("source", Json, nullable=False),
    Column("slices", Json, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("key"),
    CheckConstraint("id > 0", name="id"),
    _digest("key"),
    sqlite_strict=True,
)
completion = Table(
    "completion",
    metadata,
    Column("comparison", Integer, ForeignKey("comparison.id"), nullable=False, autoincrement=False),
    Column("position", Integer, nullable=False, autoincrement=False),
    Column("text", Text, ForeignKey("text.digest"), nullable=False),
    Column("origin", Json, nullable=False),
    Column("writer", Integer, ForeignKey("annotator.id")),
    PrimaryKeyConstraint("comparison", "position"),
    CheckConstraint("position >= 0", name="position"),
    sqlite_strict=True,
)
judgement = Table(
    "judgement",
    metadata,
    Column("seq", Integer, nullable=False, autoincrement=False),
    Column("key", Text, nullable=False),
    Column("comparison", Integer, ForeignKey("comparison.id"), nullable=False),
    Column("annotator", Integer, ForeignKey("annotator.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("opinion", Json, nullable=False),
    Column("rationale", Text, ForeignKey("text.digest")),
    Column("edit", Text, ForeignKey("text.digest")),
    Column("extra", Text, ForeignKey("text.digest")),
    Column("flags", Json, nullable=False),
    Column("shown_order", Json, nullable=False),
    Column("guideline", Json, nullable=False),
    Column("supersedes", Json, nullable=False),
    Column("at", Utc, nullable=False),
    Column("stored_at", Utc, nullable=False),
    Column("prev_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
    PrimaryKeyConstraint("seq"),
    UniqueConstraint("key"),
    UniqueConstraint("prev_hash"),
    CheckConstraint("seq > 0", name="seq"),
    _digest("key"),
    _digest("hash"),
    one_of("kind", ("pairwise", "thumb", "rating", "ranking")),
    Index(None, "comparison"),
    sqlite_strict=True,
)
split_assignment = Table(
    "split_assignment",
    metadata,
    Column("prompt_key", Text, nullable=False),
    Column("cluster", Text, nullable=False),
    Column("split", Text, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("seq", Integer, nullable=False, autoincrement=False),
    PrimaryKeyConstraint("prompt_key"),
    UniqueConstraint("seq"),
    one_of("split", ("train", "select", "test")),
    sqlite_strict=True,
)
request = Table(
    "request",
    metadata,
    Column("id", Integer, nullable=False, autoincrement=False),
    Column("key", Json, nullable=False),
    Column("kind", Text, nullable=False),
    Column("payload", Json, nullable=False),
    Column("by", Json, nullable=False),
    Column("at", Utc, nullable=False),
    PrimaryKeyConstraint("id"),
    UniqueConstraint("key"),
    one_of("kind", REQUEST_KINDS),
    sqlite_strict=True,
)
request_event = Table(
    "request_event",
    metadata,
    Column("request", Integer, ForeignKey("request.id"), nullable=False, autoincrement=False),
    Column("number", Integer, nullable=False, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("by", Json, nullable=False),
    Column("message", Json, nullable=False),
    Column("at", Utc, nullable=False),
    PrimaryKeyConstraint("request", "number"),
    one_of("state", REQUEST_STATES),
    sqlite_strict=True,
)
tombstone = Table(
    "tombstone",
    metadata,
    Column("id", Integer, nullable=False, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("subject", Json, nullable=False),
    Column("reason", Json, nullable=False),
    Column("at", Utc, nullable=False),
    PrimaryKeyConstraint("id"),
    one_of("kind", ("text", "person")),
    sqlite_strict=True,
)
