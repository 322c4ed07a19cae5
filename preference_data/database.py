"""One way to open a database, read it, write it and bring its schema up to date.

SQLite by default, PostgreSQL (`postgresql+pg8000://`) for teams. Everything particular to either is here and in the
migrations. Writers come one at a time: on SQLite through BEGIN IMMEDIATE, on PostgreSQL through an advisory lock, so
that rows become visible in the order of their numbers.
"""

import os
import sqlite3
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Table, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError

from preference_data.commits import WRITES, writers_of
from preference_data.errors import StoreError

BUSY_TIMEOUT_S = 30.0
CACHE_MIB = 64
_WRITER_LOCK = 0x50524546
_AGAIN = "nothing of this batch was stored"
_ADVICE = {
    "SQLITE_BUSY": f"another process holds the database; {_AGAIN}; wait for it, then run the same command again",
    "SQLITE_LOCKED": f"another connection holds the database; {_AGAIN}; wait for it, then run the same command again",
    "SQLITE_FULL": f"the disk is full; {_AGAIN}; free space and run the same command again",
    "SQLITE_READONLY": f"it may not be written; {_AGAIN}; make the file and its folder writable, then run again",
    "SQLITE_NOTADB": "the file is no SQLite database; expected one made here; give another path or restore a backup",
    "SQLITE_CORRUPT": "the file is damaged; keep a copy of it and restore the latest backup",
    "SQLITE_CANTOPEN": "it cannot be opened; check that its folder exists and may be written",
    "53100": f"the server's disk is full; {_AGAIN}; free space there and run the same command again",
    "25006": f"the server only allows reading; {_AGAIN}; give the URL of the primary server",
    "SQLITE_IOERR": f"the disk refused; {_AGAIN}; check the disk, then run the same command again",
}


def wal_is_safe(version: tuple[int, int, int]) -> bool:
    """Whether a SQLite release is free of the WAL-reset bug, which can corrupt a file that two processes write.

    Fixed in 3.51.3, with backports to 3.50.7 and 3.44.6; 3.52.0 was withdrawn (sqlite.org/wal.html#walresetbug).
    """
    if version[:2] in {(3, 44), (3, 50)}:
        return version >= {44: (3, 44, 6), 50: (3, 50, 7)}[version[1]]
    return version >= (3, 51, 3) and version != (3, 52, 0)


def open_engine(url: str, *, cache_mib: int = CACHE_MIB) -> Engine:
    """An engine whose transactions are explicit and whose commits are durable. Nothing is opened yet.

    Args:
        url: `sqlite:////absolute/path.db` (`?timeout=` sets how many seconds to wait for a lock, 30 by default) or
            `postgresql+pg8000://user:password@host/name`.
        cache_mib: memory SQLite may keep pages in, per connection.

    Raises:
        StoreError: the URL is no database URL, or names another database system.
    """
    expected = "expected sqlite:////absolute/path.db or postgresql+pg8000://user:password@host/name"
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError(f"database URL {url!r}: not a URL; {expected}") from error
    if parsed.get_backend_name() == "postgresql":
        return create_engine(parsed)
    if parsed.get_backend_name() != "sqlite":
        raise StoreError(f"database URL {parsed}: unknown system {parsed.get_backend_name()!r}; {expected}")
    waits = {} if "timeout" in parsed.query else {"timeout": BUSY_TIMEOUT_S}
    engine = create_engine(parsed, connect_args=waits)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "connect", _cache_of(cache_mib))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def reading(engine: Engine) -> Generator[Connection]:
    """A transaction that only reads. Keep it short: without WAL, an open reader holds up every commit.

    Raises:
        StoreError: the database refused; the message says what to do.
    """
    with _explained(engine), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Generator[Connection]:
    """A transaction that writes, alone. What it did is durable once the block has ended, and undone if it raised.

    On SQLite, threads that wait for their turn share one commit (`commits`).

    Raises:
        StoreError: the database refused; the message says what to do.
    """
    with _explained(engine):
        if engine.dialect.name == "sqlite":
            with writers_of(engine).writing(engine) as connection:
                yield connection
        else:
            with engine.begin() as connection:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _WRITER_LOCK})
                yield connection


def insert_missing(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert those rows whose keys the table does not hold."""
    if rows:
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        connection.execute(insert(table).on_conflict_do_nothing(), rows)


def upgrade(engine: Engine, migrations: Path) -> None:
    """Bring a database to the newest schema of an Alembic directory, all steps in one transaction.

    Killed at any moment it leaves the old schema or the new one. Two processes may do it at once.

    Args:
        engine: as `open_engine` gives it.
        migrations: folder with `env.py` and `versions/`.

    Raises:
        StoreError: the database is of a newer schema than the directory knows, or refused.
    """
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)
    with reading(engine) as connection:
        found = MigrationContext.configure(connection).get_current_heads()
    unknown = set(found) - {script.revision for script in scripts.walk_revisions()}
    if unknown:
        raise StoreError(
            f"{_name(engine)}: schema {', '.join(sorted(unknown))} is newer than this release, which knows up to "
            f"{scripts.get_current_head()}; install the release that wrote it, or restore a backup"
        )
    if found != tuple(scripts.get_heads()):
        with writing(engine) as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def backup(engine: Engine, path: Path) -> None:
    """Copy a live SQLite database to a new file, checked and complete before it has its name.

    Raises:
        StoreError: the file exists, the disk refused, the copy is damaged, or the database is not SQLite.
    """
    if engine.dialect.name != "sqlite":
        raise StoreError(f"{_name(engine)}: backup copies SQLite files; use pg_dump for PostgreSQL")
    if path.exists():
        raise StoreError(f"{path}: exists already; a backup never replaces one; give another path")
    staging = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with _explained(engine), closing(sqlite3.connect(staging)) as copy, engine.connect() as connection:
            source: Any = connection.connection.driver_connection
            source.backup(copy)
            problems = copy.execute("PRAGMA integrity_check").fetchall()
            if problems != [("ok",)]:
                raise StoreError(
                    f"{_name(engine)}: the copy is damaged ({problems[0][0]}); {_ADVICE['SQLITE_CORRUPT']}"
                )
        _sync(staging)
        staging.rename(path)
        _sync(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; no backup was made; choose another folder") from error
    finally:
        staging.unlink(missing_ok=True)


def forget_overwritten(engine: Engine) -> None:
    """Empty SQLite's write-ahead log, where what was overwritten in the file lives on. Waits for readers."""
    if engine.dialect.name == "sqlite":
        with _explained(engine), engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    # WAL only where the linked SQLite cannot corrupt it; asked first, because a change needs the file for itself.
    wanted = "wal" if wal_is_safe(sqlite3.sqlite_version_info[:3]) else "delete"
    if connection.execute("PRAGMA journal_mode").fetchone()[0] not in {wanted, "memory"}:
        connection.execute(f"PRAGMA journal_mode = {wanted}")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    # Otherwise INSERT OR REPLACE would delete rows behind the back of the triggers that refuse it.
    connection.execute("PRAGMA recursive_triggers = ON")
    # What is erased is overwritten, not left in free pages.
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA trusted_schema = OFF")


def _cache_of(mib: int) -> Callable[[sqlite3.Connection, object], None]:
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA cache_size = -{1024 * mib}")

    return prepare


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _explained(engine: Engine) -> Generator[None]:
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        kind, words = _kind_and_words(cause)
        advice = _ADVICE.get(kind, f"the database refused; {_AGAIN}; check that it runs, and what it says here")
        raise StoreError(f"{_name(engine)}: {advice} ({words})") from error


def _kind_and_words(cause: BaseException | None) -> tuple[str, str]:
    """What kind of error it is, and what the database says about it."""
    detail: Any = cause.args[0] if cause and cause.args else None
    if isinstance(detail, Mapping):  # pg8000: the fields of PostgreSQL's message
        fields = cast("Mapping[str, str]", detail)
        return fields.get("C", ""), fields.get("M", "")
    return "_".join(str(getattr(cause, "sqlite_errorname", "")).split("_")[:2]), str(cause)


def _name(engine: Engine) -> str:
    return engine.url.database or "in memory" if engine.dialect.name == "sqlite" else str(engine.url)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
