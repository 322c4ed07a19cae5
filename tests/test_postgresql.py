"""The store on PostgreSQL. Needs a server where a database may be made: WORKBENCH_POSTGRESQL=postgresql+pg8000://…"""

import os
import threading
import uuid

import pytest
from sqlalchemy import create_engine, make_url, text

from preference_data import schema
from preference_data.database import open_engine, writing
from preference_data.errors import StoreError
from preference_data.records import digest
from preference_data.requests import Requests
from preference_data.store import Added, Assignment, Store
from tests.test_migrations import described
from tests.test_store import Verdict, entry
from tests.test_store_faults import GROWING

SERVER = os.environ.get("WORKBENCH_POSTGRESQL", "")
pytestmark = pytest.mark.skipif(not SERVER, reason="WORKBENCH_POSTGRESQL names no server")


@pytest.fixture
def url():
    server = create_engine(SERVER, isolation_level="AUTOCOMMIT")
    name = f"test_{uuid.uuid4().hex}"
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(SERVER).set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.fixture
def store(url):
    with Store.open(url) as opened:
        yield opened


def test_migrated_schema_is_the_one_the_code_describes(store, url):
    migrated = described(store.engine)
    with writing(store.engine) as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    made = open_engine(url)
    schema.metadata.create_all(made)
    assert migrated == described(made)
    made.dispose()


def test_round_trip_and_erasure(store):
    many = [entry(str(n), Verdict.FIRST, rationale="\0\ud800", extra={"\0": "\ud800"}) for n in range(600)]
    assert store.add(many) == Added(600, 0)
    assert store.add(many) == Added(0, 600)
    assert list(store.entries()) == many
    store.assign([Assignment("p", "c", "train", b"\0")])
    assert list(store.assignments()) == [Assignment("p", "c", "train", b"\0")]
    store.erase_text(digest("\0\ud800"), reason="asked")
    assert {each.rationale for found in store.entries() for each in found.judgements} == {""}
    store.verify_chain()


@pytest.mark.parametrize("table", [*GROWING, "text", "annotator"])
def test_rows_are_refused_to_go(store, table):
    store.add([entry("one", Verdict.FIRST)])
    store.assign([Assignment("p", "c", "train", b"")])
    store.erase_person("ann", reason="asked")
    Requests(store.engine).file("k", "round", {}, by="ann")
    changes = [f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE"]
    if table in GROWING:
        column = schema.metadata.tables[table].primary_key.columns.values()[-1].name
        changes.append(f"UPDATE {table} SET {column} = {column}")
    for change in changes:
        with pytest.raises(StoreError, match=f"only grows: {change.split()[0]} refused"):  # noqa: SIM117
            with writing(store.engine) as connection:
                connection.execute(text(change))


def test_writers_at_once_make_one_chain(store, url):
    def write(name):
        with Store.open(url) as own:
            for number in range(10):
                own.add([entry(f"{name}.{number}", Verdict.TIE)])

    writers = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert store.watermark().seq == 40
    store.verify_chain()
