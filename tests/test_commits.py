"""Threads that wait to write share a commit, and no more than that."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event

from preference_data import commits
from preference_data.commits import writers_of
from preference_data.database import open_engine, reading, writing
from preference_data.errors import StoreError


@pytest.fixture
def engine(tmp_path):
    found = open_engine(f"sqlite:///{tmp_path}/x.db")
    with writing(found) as connection:
        connection.exec_driver_sql("CREATE TABLE number (n INTEGER PRIMARY KEY)")
    yield found
    found.dispose()


@pytest.fixture
def committed(engine):
    """One entry for each commit."""
    seen = []
    event.listen(engine, "commit", seen.append)
    return seen


def keep(engine, number, error=None):
    with writing(engine) as connection:
        connection.exec_driver_sql(f"INSERT INTO number VALUES ({number})")
        if error is not None:
            raise error
    return number


def numbers(engine):
    with reading(engine) as connection:
        return [row[0] for row in connection.exec_driver_sql("SELECT n FROM number ORDER BY n")]


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture
def together(engine):
    """Runs works so that all but the first wait for it: together((), (number, error), …) gives their futures."""
    pool = ThreadPoolExecutor(40)

    def run(*works):
        go, inside = threading.Event(), threading.Event()

        def first():
            with writing(engine) as connection:
                connection.exec_driver_sql("INSERT INTO number VALUES (0)")
                inside.set()
                assert go.wait(20)
            return 0

        futures = [pool.submit(first)]
        assert inside.wait(20)
        for waiting, work in enumerate(works, start=1):
            futures.append(pool.submit(work))
            until(lambda: writers_of(engine).waiting == waiting)  # noqa: B023 - asked at once
        go.set()
        return futures

    yield run
    pool.shutdown()


def test_those_who_wait_share_one_commit(engine, committed, together):
    done = together(*(lambda n=n: keep(engine, n) for n in range(1, 6)))
    assert [each.result(20) for each in done] == [0, 1, 2, 3, 4, 5]
    assert numbers(engine) == [0, 1, 2, 3, 4, 5]
    assert len(committed) == 1 + 1, "one for the six, one for the question after them"


def test_a_lone_writer_commits_at_once(engine, committed):
    keep(engine, 1)
    keep(engine, 2)
    assert len(committed) == 2


def test_no_more_than_so_many_share_one(engine, committed, together, monkeypatch):
    monkeypatch.setattr(commits, "MOST", 3)
    for each in together(*(lambda n=n: keep(engine, n) for n in range(1, 7))):
        each.result(20)
    assert len(committed) == 3, "of seven: three, three and one"


def test_who_fails_undoes_their_own_work_alone(engine, together):
    _, one, two, three = together(
        lambda: keep(engine, 1), lambda: keep(engine, 2, ValueError("no")), lambda: keep(engine, 3)
    )
    assert (one.result(20), three.result(20)) == (1, 3)
    with pytest.raises(ValueError, match="no"):
        two.result(20)
    assert numbers(engine) == [0, 1, 3]


def test_nobody_is_told_before_the_commit(engine, together):
    go = threading.Event()

    def slow():
        with writing(engine) as connection:
            connection.exec_driver_sql("INSERT INTO number VALUES (1)")
            assert go.wait(20)

    first, second = together(slow)
    time.sleep(0.1)
    assert not first.done()
    assert numbers(engine) == []
    go.set()
    second.result(20)
    assert first.result(20) == 0
    assert numbers(engine) == [0, 1]


def test_a_commit_that_fails_fails_for_all(engine, together):
    # A deferred foreign key is looked at by the commit.
    with writing(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE child (n INTEGER REFERENCES number (n) DEFERRABLE INITIALLY DEFERRED)")

    def orphan():
        with writing(engine) as connection:
            connection.exec_driver_sql("INSERT INTO child VALUES (99)")

    for each in together(lambda: keep(engine, 1), orphan):
        with pytest.raises(StoreError, match="FOREIGN KEY constraint failed"):
            each.result(20)
    assert numbers(engine) == []
    assert keep(engine, 5) == 5


def test_a_transaction_the_database_undid_fails_for_all_who_were_in_it(engine, together):
    """As SQLite does on a full disk, in the middle of somebody's work."""

    def broken():
        with writing(engine) as connection:
            connection.exec_driver_sql("ROLLBACK")
            raise OSError("disk")

    first, second, third, fourth = together(lambda: keep(engine, 1), broken, lambda: keep(engine, 3))
    for each in (first, second, third):
        with pytest.raises(OSError, match="disk"):
            each.result(20)
    assert fourth.result(20) == 3, "came after it, in a transaction of its own"
    assert numbers(engine) == [3]


def test_who_gives_up_waiting_loses_nothing_of_others(engine, together, monkeypatch):
    """Interrupted after the turn, and the commit of those before, was handed over."""

    class Interrupted(threading.Event):
        def wait(self, timeout=None):
            super().wait(timeout)
            raise KeyboardInterrupt

    def gives_up():
        monkeypatch.setattr(commits, "Event", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            keep(engine, 1)

    first, second = together(gives_up)
    assert first.result(20) == 0
    second.result(20)
    monkeypatch.undo()
    assert keep(engine, 2) == 2
    assert numbers(engine) == [0, 2]
