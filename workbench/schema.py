"""Tables of the ledger database: policies, rounds and their steps, measurements, cached scores.

`alias_event`, `event`, `measurement` and `score` are append-only: triggers made by the migrations refuse to change or
remove a row. Times are UTC; `*_at` columns hold ISO 8601 text, leases hold seconds since the epoch.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    Engine,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

from preference_data.database import CACHE_MIB, open_engine, upgrade
from preference_data.schema import Json

MIGRATIONS = Path(__file__).with_name("migrations")

APPEND_ONLY = ("alias_event", "event", "measurement", "score")

ROUND_STATES = ("planned", "running", "stopped", "failed", "rejected", "promoted", "kept")
STEP_STATES = ("open", "claimed", "done")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "pk": "pk_%(table_name)s",
    }
)


NUMBER = Double().with_variant(REAL(), "sqlite")
"""Eight bytes everywhere: SQLite's REAL is a double, PostgreSQL's is not."""
SEQUENCE = BigInteger().with_variant(Integer(), "sqlite")


def _one_of(column: str, values: Sequence[str]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(v) for v in values)})", name=column)


policy = Table(
    "policy",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("parent", Text),
    Column("base", Text, nullable=False),
    Column("tokenizer", Text, nullable=False),
    Column("round", Text),
    Column("version", Text),
    Column("config", Text),
    Column("path", Text),
    Column("origin", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("facts", Json, nullable=False),
    _one_of("kind", ("full", "adapter")),
    _one_of("origin", ("base", "round", "adopted")),
    sqlite_strict=True,
)
"""`path` is the folder of weights that stay where they are; empty for those among the objects."""

alias = Table(
    "alias",
    metadata,
    Column("name", Text, primary_key=True),
    Column("policy", Text, nullable=False),
    sqlite_strict=True,
)

alias_event = Table(
    "alias_event",
    metadata,
    Column("id", SEQUENCE, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("old", Text),
    Column("new", Text, nullable=False),
    Column("round", Text),
    Column("reason", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("at", Text, nullable=False),
    _one_of("kind", ("promote", "rollback")),
    UniqueConstraint("name", "round"),
    sqlite_strict=True,
)

round_ = Table(
    "round",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("plan", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("child", Text),
    Column("verdict", Json),
    Column("message", Text, nullable=False),
    Column("started_at", Text, nullable=False),
    Column("ended_at", Text),
    _one_of("state", ROUND_STATES),
    sqlite_strict=True,
)

step = Table(
    "step",
    metadata,
    Column("round", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("fence", Integer, nullable=False),
    Column("owner", Text, nullable=False),
    Column("lease_until", NUMBER, nullable=False),
    Column("input_digest", Text, nullable=False),
    Column("output_digest", Text),
    Column("attempts", Integer, nullable=False),
    PrimaryKeyConstraint("round", "name"),
    _one_of("state", STEP_STATES),
    CheckConstraint("(state = 'done') = (output_digest IS NOT NULL)", name="output"),
    sqlite_strict=True,
)

event = Table(
    "event",
    metadata,
    Column("id", SEQUENCE, primary_key=True, autoincrement=True),
    Column("round", Text, nullable=False, index=True),
    Column("step", Text, nullable=False),
    Column("done", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    Column("facts", Json, nullable=False),
    Column("at", Text, nullable=False),
    sqlite_strict=True,
)

stop = Table(
    "stop",
    metadata,
    Column("round", Text, primary_key=True),
    Column("by", Text, nullable=False),
    Column("at", Text, nullable=False),
    sqlite_strict=True,
)

measurement = Table(
    "measurement",
    metadata,
    Column("policy", Text, nullable=False),
    Column("suite", Text, nullable=False),
    Column("item", Text, nullable=False),
    Column("metric", Text, nullable=False),
    Column("numerics", Text, nullable=False),
    Column("value", NUMBER, nullable=False),
    Column("group", Text, nullable=False),
    Column("slices", Json, nullable=False),
    Column("detail", Json, nullable=False),
    PrimaryKeyConstraint("policy", "suite", "metric", "numerics", "item"),
    sqlite_strict=True,
)

measured = Table(
    "measured",
    metadata,
    Column("policy", Text, nullable=False),
    Column("suite", Text, nullable=False),
    Column("metric", Text, nullable=False),
    Column("numerics", Text, nullable=False),
    Column("n", Integer, nullable=False),
    PrimaryKeyConstraint("policy", "suite", "metric", "numerics"),
    sqlite_strict=True,
)
"""What there is in `measurement`, so that nobody has to count its rows."""

number = Table(
    "number",
    metadata,
    Column("policy", Text, nullable=False),
    Column("numerics", Text, nullable=False),
    Column("slice", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("suite", Text, nullable=False),
    Column("value", NUMBER),
    Column("low", NUMBER),
    Column("high", NUMBER),
    Column("n", Integer, nullable=False),
    Column("method", Text, nullable=False),
    PrimaryKeyConstraint("policy", "numerics", "slice", "name", "suite"),
    sqlite_strict=True,
)
"""What is computed from `measurement`, kept because it is looked at more often than it changes. `slice` is empty for all
items, `name=value` for those of a slice."""

numbered = Table(
    "numbered",
    metadata,
    Column("policy", Text, nullable=False),
    Column("numerics", Text, nullable=False),
    Column("stamp", Text, nullable=False),
    PrimaryKeyConstraint("policy", "numerics"),
    sqlite_strict=True,
)
"""From which measurements a policy's numbers were computed."""

score = Table(
    "score",
    metadata,
    Column("policy", Text, nullable=False),
    Column("numerics", Text, nullable=False),
    Column("example", Text, nullable=False),
    Column("logp", NUMBER, nullable=False),
    Column("tokens", Integer, nullable=False),
    PrimaryKeyConstraint("policy", "numerics", "example"),
    sqlite_strict=True,
)


def open_ledger(url: str, *, cache_mib: int = CACHE_MIB) -> Engine:
    """Open a ledger database and bring its tables up to date.

    Args:
        url: SQLAlchemy URL, such as `sqlite:////home/ada/project/ledger.db`.
        cache_mib: memory SQLite may keep pages in, per connection.

    Raises:
        StoreError: the database cannot be opened or was written by a newer release.
    """
    engine = open_engine(url, cache_mib=cache_mib)
    upgrade(engine, MIGRATIONS)
    return engine


def timestamp() -> str:
    """This moment in UTC, as ISO 8601 text with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
