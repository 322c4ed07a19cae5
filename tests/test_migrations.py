import contextlib
import multiprocessing
import os
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import event, inspect

from preference_data import queue_schema
from preference_data.database import open_engine, reading, upgrade, wal_is_safe, writing
from preference_data.errors import StoreError
from preference_data.store import MIGRATIONS, Store

STEP_TWO = '''
"""A step that fails after its first statement, or works."""
from alembic import op

revision = "t002"
down_revision = "t001"


def upgrade() -> None:
    op.execute("CREATE TABLE second (id INTEGER)")
    op.execute({last!r})
'''
STEP_ONE = '''
"""A first step."""
from alembic import op

revision = "t001"
down_revision = None


def upgrade() -> None:
    op.execute("CREATE TABLE first (id INTEGER)")
    op.execute("INSERT INTO first VALUES (7)")
'''


def described(engine):
    """All that the database says about its tables, so that two can be compared."""
    found = inspect(engine)
    ask = (
        found.get_columns,
        found.get_pk_constraint,
        found.get_foreign_keys,
        found.get_unique_constraints,
        found.get_check_constraints,
        found.get_indexes,
        found.get_table_options,
    )
    return {
        name: [[repr(each)] if isinstance(each := about(name), dict) else sorted(map(repr, each)) for about in ask]
        for name in found.get_table_names()
        if name != "alembic_version"
    }


def migrations(folder: Path, *steps: str) -> Path:
    (folder / "versions").mkdir(parents=True, exist_ok=True)
    (folder / "env.py").write_text((MIGRATIONS / "env.py").read_text())
    for number, step in enumerate(steps):
        (folder / "versions" / f"t{number}.py").write_text(step)
    return folder


def test_migrated_schema_is_the_one_the_code_describes(tmp_path):
    migrated, made = (open_engine(f"sqlite:///{tmp_path}/{name}.db") for name in ("migrated", "made"))
    upgrade(migrated, MIGRATIONS)
    queue_schema.metadata.create_all(made)
    assert described(migrated) == described(made)
    assert len(described(made)) == 21
    with reading(migrated) as connection:
        assert compare_metadata(MigrationContext.configure(connection), queue_schema.metadata) == []


def test_a_queue_keeps_its_order_when_priorities_become_ranks(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path}/p.db")
    older = tmp_path / "older"
    shutil.copytree(MIGRATIONS, older)
    for step in ("s003_page.py", "s004_erased.py"):
        (older / "versions" / step).unlink()
    upgrade(engine, older)
    with writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO prompt (key, turns) VALUES (?, '[]')", ("1" * 64,))
        connection.exec_driver_sql(
            "INSERT INTO project VALUES (1, '\"p\"', 'pairwise', '\"l\"', '2026-01-01T00:00:00')"
        )
        for number, priority in ((1, 0), (2, 5), (3, 5)):
            connection.exec_driver_sql("INSERT INTO comparison (id, key, prompt, source, slices) VALUES (?, ?, ?, '\"s\"', '{}')",
                                       (number, f"{number:064x}", "1" * 64))  # fmt: skip
            connection.exec_driver_sql("INSERT INTO item VALUES (?, 1, ?, 'work', ?, ?, '\"r\"', '1', '{}', NULL, '\"l\"', "
                                       "'2026-01-01T00:00:00')", (number, number, priority, 9 - number))  # fmt: skip
            connection.exec_driver_sql("INSERT INTO open_item VALUES (?, 1, ?, ?)", (number, priority, 9 - number))
    upgrade(engine, MIGRATIONS)
    with reading(engine) as connection:
        ordered = connection.exec_driver_sql("SELECT item, rank FROM open_item ORDER BY rank, draw, item").all()
    assert ordered == [(3, -5), (2, -5), (1, 0)]  # the more urgent first, and of those the smaller draw


def test_newer_schema_is_refused(tmp_path):
    Store.open(f"sqlite:///{tmp_path}/p.db").close()
    with sqlite3.connect(tmp_path / "p.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = 's999'")
    raw.close()
    with pytest.raises(StoreError, match=r"p\.db: schema s999 is newer than this release, which knows up to s004"):
        Store.open(f"sqlite:///{tmp_path}/p.db")


def test_failed_step_leaves_the_old_schema_and_its_data(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path}/p.db")
    upgrade(engine, migrations(tmp_path / "one", STEP_ONE))
    with pytest.raises(StoreError, match=r"p\.db: .*no such table: nowhere"):
        upgrade(engine, migrations(tmp_path / "bad", STEP_ONE, STEP_TWO.format(last="INSERT INTO nowhere VALUES (1)")))
    assert set(inspect(engine).get_table_names()) == {"alembic_version", "first"}
    upgrade(engine, migrations(tmp_path / "good", STEP_ONE, STEP_TWO.format(last="INSERT INTO second VALUES (8)")))
    with reading(engine) as connection:
        assert connection.exec_driver_sql("SELECT first.id, second.id FROM first, second").all() == [(7, 8)]


def upgrade_and_die(path: Path, statements: int) -> None:
    engine, seen = open_engine(f"sqlite:///{path}"), []

    @event.listens_for(engine, "after_cursor_execute")
    def count(*_):
        seen.append(1)
        if len(seen) == statements:
            os.kill(os.getpid(), signal.SIGKILL)

    upgrade(engine, MIGRATIONS)


@pytest.mark.parametrize("statements", [6, 17, 33, 36])
def test_killed_migration_leaves_old_or_new(tmp_path, statements):
    child = multiprocessing.get_context("forkserver").Process(
        target=upgrade_and_die, args=(tmp_path / "p.db", statements)
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    raw = sqlite3.connect(tmp_path / "p.db")
    assert raw.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)  # old: nothing at all
    assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    raw.close()
    with Store.open(f"sqlite:///{tmp_path}/p.db") as store:
        assert store.counts()["judgements"] == 0


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 9), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), False),
        ((3, 52, 1), True),
        ((3, 53, 0), True),
        ((4, 0, 0), True),
    ],
)
def test_wal_only_where_it_cannot_corrupt(version, safe):
    assert wal_is_safe(version) is safe


@pytest.mark.parametrize(("version", "mode"), [((3, 51, 2), "delete"), ((3, 51, 3), "wal")])
def test_journal_mode_follows_the_linked_sqlite(tmp_path, monkeypatch, version, mode):
    monkeypatch.setattr("sqlite3.sqlite_version_info", version)
    engine = open_engine(f"sqlite:///{tmp_path}/p.db")
    with reading(engine) as connection:
        ask = connection.exec_driver_sql
        assert ask("PRAGMA journal_mode").scalar() == mode
        assert ask("PRAGMA synchronous").scalar() == 2  # FULL
        assert ask("PRAGMA foreign_keys").scalar() == 1
        assert ask("PRAGMA busy_timeout").scalar() == 30_000


def test_what_raises_is_undone(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path}/p.db")
    with writing(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE t (id INTEGER)")
    with contextlib.suppress(KeyError), writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
        raise KeyError
    with reading(engine) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar() == 0


@pytest.mark.parametrize("url", ["preferences.db", "mysql://host/name"])
def test_other_urls_are_refused(url):
    with pytest.raises(StoreError, match="expected sqlite:"):
        open_engine(url)
