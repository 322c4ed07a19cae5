import contextlib
import multiprocessing
import random
import signal
import sqlite3
import time
from contextlib import closing
from itertools import count

import pytest
from sqlalchemy import insert, select

from preference_data import schema
from preference_data.database import writing
from preference_data.errors import StoreError
from preference_data.records import (
    Comparison,
    Completion,
    Imported,
    Judgement,
    Pairwise,
    Prompt,
    Verdict,
    Written,
    canonical_json,
    digest,
)
from preference_data.rows import chain_hash
from preference_data.store import Added, Annotator, Assignment, Entry, Store
from tests.test_store import AT, comparison, entry

UTC = AT.tzinfo


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/p.db") as opened:
        yield opened


def tamper(tmp_path, *statements):
    """Change the file as somebody would who does not go through the store: triggers and checks out of the way."""
    with closing(sqlite3.connect(tmp_path / "p.db", isolation_level=None)) as raw:
        raw.execute("PRAGMA ignore_check_constraints = ON")
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            raw.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            raw.execute(statement)


# --- append-only, chained -----------------------------------------------------------------------------------------

GROWING = (
    "prompt", "comparison", "completion", "judgement", "split_assignment", "request", "request_event", "tombstone",
)  # fmt: skip


@pytest.fixture
def full(store):
    """A store with a row in every table."""
    store.add([entry("one", Verdict.FIRST, rationale="why"), entry("two", Verdict.TIE)])
    store.assign([Assignment("p", "c", "train", b"s")])
    store.erase_text(digest("why"), reason="asked")
    with writing(store.engine) as connection:
        connection.execute(
            insert(schema.request), {"id": 1, "key": "k", "kind": "round", "payload": {}, "by": "x", "at": AT}
        )
        event = {"request": 1, "number": 1, "state": "filed", "by": "x", "message": "", "at": AT}
        connection.execute(insert(schema.request_event), event)
    return store


@pytest.mark.parametrize("table", [*GROWING, "text", "annotator"])
def test_no_row_is_deleted(full, table):
    with pytest.raises(StoreError, match=f"{table} only grows: DELETE refused"), writing(full.engine) as connection:
        connection.exec_driver_sql(f"DELETE FROM {table}")


@pytest.mark.parametrize("table", GROWING)
def test_no_row_is_changed_nor_replaced(full, table):
    column = schema.metadata.tables[table].primary_key.columns.values()[-1].name
    with pytest.raises(StoreError, match=f"{table} only grows: UPDATE refused"), writing(full.engine) as connection:
        connection.exec_driver_sql(f"UPDATE {table} SET {column} = {column}")
    with pytest.raises(StoreError, match=f"{table} only grows: DELETE refused"), writing(full.engine) as connection:
        connection.exec_driver_sql(f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}")


def test_an_erased_text_gets_no_new_body(full):
    with pytest.raises(StoreError, match="text only grows: UPDATE refused"), writing(full.engine) as connection:
        connection.exec_driver_sql("UPDATE text SET body = x'61'")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE judgement SET opinion = replace(opinion, 'first', 'second') WHERE seq = 2", "judgement 2"),
        ("UPDATE judgement SET at = replace(at, '2026', '2025') WHERE seq = 1", "judgement 1"),
        ("UPDATE judgement SET annotator = 2 WHERE seq = 3", "judgement 3"),
        ("UPDATE judgement SET comparison = 1 WHERE seq = 2", "judgement 2"),
        ("UPDATE judgement SET hash = prev_hash WHERE seq = 3", "judgement 3"),
        ("DELETE FROM judgement WHERE seq = 2", "judgement 2"),
        ("UPDATE judgement SET flags = 'x' WHERE seq = 2", "a row after judgement 0"),
        (f"UPDATE text SET body = x'61' WHERE digest = '{digest('because')}'", f"text {digest('because')}"),
        ("UPDATE comparison SET source = '\"x\"' WHERE id = 2", f"comparison {comparison('b').key}"),
        ("UPDATE completion SET position = position + 2 WHERE comparison = 3 AND position = 0", f"comparison {comparison('c').key}"),
    ],
)  # fmt: skip
def test_tampering_is_found(store, tmp_path, change, found):
    store.add([entry(name, Verdict.FIRST, rationale="because") for name in "abc"])
    store.add([entry("d", annotator="somebody else")])
    store.enrol("another")
    store.verify_chain()
    tamper(tmp_path, change)
    with pytest.raises(StoreError, match=f"^{found}.*: not as it was stored"):
        store.verify_chain()


def test_a_row_forged_with_its_own_hash_breaks_the_next(store, tmp_path):
    store.add([entry(name, Verdict.FIRST) for name in "abc"])
    with store.engine.connect() as connection:
        second = select(schema.judgement).where(schema.judgement.c.seq == 2)
        row = dict(connection.execute(second).mappings().one())
    forged = chain_hash(row | {"opinion": row["opinion"] | {"verdict": "second"}})
    tamper(
        tmp_path,
        f"UPDATE judgement SET opinion = replace(opinion, 'first', 'second'), hash = '{forged}' WHERE seq = 2",
    )
    with pytest.raises(StoreError, match="^judgement 3: not as it was stored"):
        store.verify_chain()


def test_the_chain_depends_on_all_that_came_before(tmp_path):
    heads = []
    for name, first in (("x", Verdict.FIRST), ("y", Verdict.SECOND)):
        with Store.open(f"sqlite:///{tmp_path}/{name}.db") as store:
            store.add([entry("one", first), entry("two", Verdict.TIE)])
            heads.append(store.watermark().head)
            assert store.watermark().seq == 2
    assert heads[0] != heads[1]


# --- erasure ------------------------------------------------------------------------------------------------------


def bytes_of(folder):
    return b"".join(path.read_bytes() for path in folder.iterdir())


@pytest.fixture(params=[(3, 51, 2), (3, 51, 3)], ids=["delete", "wal"])
def either(request, tmp_path, monkeypatch):
    """A store in each journal mode."""
    monkeypatch.setattr("sqlite3.sqlite_version_info", request.param)
    with Store.open(f"sqlite:///{tmp_path}/p.db") as opened:
        yield opened


def test_an_erased_answer_takes_its_comparison_along(either, tmp_path):
    store = either
    kept, lost = entry("kept", Verdict.FIRST), entry("UNWANTED", Verdict.FIRST)
    store.add([lost, kept])
    mark = store.watermark()
    assert b"UNWANTED first" in bytes_of(tmp_path)
    store.erase_text(digest("UNWANTED first"), reason="a phone number")
    assert b"UNWANTED first" not in bytes_of(tmp_path)
    assert list(store.entries()) == [kept]
    assert store.watermark() == mark
    store.verify_chain()
    store.add([lost])
    assert list(store.entries()) == [kept]  # it does not come back
    assert store.counts()["erasures"] == 1


def test_erased_words_leave_the_opinion(store):
    extra = {"line": 7, "name": "Anna"}
    store.add([entry("one", Verdict.FIRST, rationale="why", edit="better", extra=extra)])
    store.erase_text(digest("why"), digest("better"), digest(canonical_json(extra)), reason="asked")
    assert list(store.entries()) == [entry("one", Verdict.FIRST)]
    store.verify_chain()
    assert store.counts()["erasures"] == 3
    store.erase_text(digest("why"), reason="asked again")
    assert store.counts()["erasures"] == 3


def test_an_unknown_text_erases_nothing(store):
    store.add([entry("one", Verdict.FIRST, rationale="why")])
    with pytest.raises(StoreError, match=f"text {digest('nothing')}: not in the store; nothing was erased"):
        store.erase_text(digest("why"), digest("nothing"), reason="asked")
    assert list(store.entries()) == [entry("one", Verdict.FIRST, rationale="why")]


def test_an_erased_person_becomes_a_pseudonym_everywhere(either, tmp_path):
    store = either
    answers = (Completion("a", Written("PERSON@x.org")), Completion("b", Imported("f")))
    about = Comparison(Prompt.of("q"), answers, "page")
    old = Judgement(about.key, "PERSON@x.org", Pairwise(Verdict.FIRST), AT)
    new = Judgement(about.key, "PERSON@x.org", Pairwise(Verdict.TIE), AT, supersedes=old.key)
    store.enrol("PERSON@x.org", identity="PERSON Name", group="experts")
    store.add([Entry(about, (old, new)), entry("other", Verdict.FIRST)])
    assert store.annotators() == [
        Annotator("PERSON@x.org", "PERSON Name", "experts", 2, None),
        Annotator("ann", "", "", 1, None),
    ]
    mark = store.watermark()
    pseudonym = store.erase_person("PERSON@x.org", reason="asked")
    assert b"PERSON" not in bytes_of(tmp_path)
    found, _ = store.entries()
    assert [each.annotator for each in found.judgements] == [pseudonym]  # and only the one in force
    assert found.judgements[0].opinion == Pairwise(Verdict.TIE)
    assert found.comparison.completions[0].origin == Written(pseudonym)
    gone, _ = store.annotators()
    assert (gone.handle, gone.identity, gone.group, gone.judgements) == (pseudonym, "", "", 2)
    assert gone.erased_at.tzinfo is UTC
    assert store.watermark() == mark
    store.verify_chain()
    assert store.add([Entry(about, (old, new))]) == Added(0, 2)  # importing the file again brings nobody back
    assert len(store.annotators()) == 2
    with pytest.raises(StoreError, match="was erased and stays so"):
        store.enrol(pseudonym, identity="PERSON Name")
    with pytest.raises(StoreError, match=r"'PERSON@x.org': not in the store; nothing was erased"):
        store.erase_person("PERSON@x.org", reason="asked again")


# --- faults -------------------------------------------------------------------------------------------------------


def write_without_end(url, life, acknowledge):
    with Store.open(url) as store:
        for number in count():
            names = [f"{life}.{number}.{each}" for each in range(3)]
            store.add([entry(name, Verdict.FIRST) for name in names])
            acknowledge.send(names)


def test_killed_writer_loses_nothing_acknowledged(tmp_path):
    url, context, draw = f"sqlite:///{tmp_path}/p.db", multiprocessing.get_context("forkserver"), random.Random(7)
    acknowledged = set()
    for life in range(8):
        receive, send = context.Pipe(duplex=False)
        writer = context.Process(target=write_without_end, args=(url, life, send))
        writer.start()
        send.close()
        acknowledged.update(receive.recv())  # it is under way
        time.sleep(draw.uniform(0, 0.1))
        writer.kill()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        with contextlib.suppress(EOFError):
            while True:
                acknowledged.update(receive.recv())
        with Store.open(url) as store:
            kept = [each.comparison.prompt.text for each in store.entries() if each.judgements]
            assert {f"user: {name}?" for name in acknowledged} <= set(kept)
            assert len(kept) == len(set(kept)) == store.watermark().seq
            assert len(kept) % 3 == 0  # whole batches only
            store.verify_chain()
    with closing(sqlite3.connect(tmp_path / "p.db")) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_full_disk_keeps_what_was_and_nothing_of_the_batch(store):
    store.add([entry("before", Verdict.FIRST)])
    with store.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 3}")
    many = [entry(f"{number} {'x' * 2000}", Verdict.FIRST) for number in range(50)]
    with pytest.raises(
        StoreError, match=r"p\.db: the disk is full; nothing of this batch was stored; free space and run the same"
    ):
        store.add(many)
    assert list(store.entries()) == [entry("before", Verdict.FIRST)]
    with store.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1073741823")
    assert store.add(many) == Added(50, 0)
    store.verify_chain()


def test_a_lock_held_too_long_is_named(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/p.db?timeout=0.05") as store:
        with closing(sqlite3.connect(tmp_path / "p.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match=r"p\.db: another process holds the database; nothing of this batch"):
                store.add([entry("one", Verdict.FIRST)])
            assert list(store.entries()) == []  # readers go on
            other.execute("ROLLBACK")
        assert store.add([entry("one", Verdict.FIRST)]) == Added(1, 0)


def test_a_write_protected_store_is_named(tmp_path):
    Store.open(f"sqlite:///{tmp_path}/p.db").close()
    with (
        Store.open(f"sqlite:///file:{tmp_path}/p.db?mode=ro&uri=true") as store,
        pytest.raises(StoreError, match="it may not be written; nothing of this batch was stored; make the file"),
    ):
        store.add([entry("one", Verdict.FIRST)])


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "p.db").write_text("prompt,chosen,rejected\n" * 100)
    with pytest.raises(StoreError, match=r"p\.db: the file is no SQLite database"):
        Store.open(f"sqlite:///{tmp_path}/p.db")
    assert (tmp_path / "p.db").read_text() == "prompt,chosen,rejected\n" * 100


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"none/p\.db: it cannot be opened; check that its folder exists"):
        Store.open(f"sqlite:///{tmp_path}/none/p.db")
