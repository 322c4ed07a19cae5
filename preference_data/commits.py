"""Writers of a SQLite database take turns, and those that wait for theirs share one commit.

A durable commit waits for the disk, and nobody else can write meanwhile. So a writer behind which others wait leaves
its work in the open transaction, as a savepoint, and lets the next one on; the last commits for all. Nobody is told
that their work is stored before that commit, and whoever fails undoes their own work alone.
"""

from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from threading import Event, Lock
from typing import Any, Self
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine

MOST = 16
"""Writers that share a commit, at most: the first of them waits for all."""
WRITES = "preference_data_writes"
"""Execution option of connections that write."""


class _Group:
    """Writers that share a transaction, and what became of it once `over` is set."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.members = 0
        self.over = Event()
        self.error: BaseException | None = None

    @classmethod
    def begun(cls, engine: Engine) -> Self:
        """A group of nobody yet, its transaction open."""
        connection = engine.connect().execution_options(**{WRITES: True})
        try:
            connection.begin()
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    def failed(self, error: BaseException) -> None:
        """Take note of a member's error. A full or broken disk makes SQLite undo the whole transaction at once."""
        raw: Any = self.connection.connection.driver_connection
        if not raw.in_transaction:
            self.error = error

    def finish(self) -> None:
        """Commit for all; whatever happens, they are told."""
        try:
            self._end()
        except Exception as error:  # noqa: BLE001 - every member raises it
            self.error = error
        finally:
            self.over.set()

    def _end(self) -> None:
        raw: Any = self.connection.connection.driver_connection
        try:
            if self.error is None:
                self.connection.commit()
        finally:
            raw.rollback()  # nothing, unless the commit failed: SQLite leaves the transaction open then
            self.connection.close()


class Writers:
    """Those who write one database in this process, first come first served."""

    def __init__(self) -> None:
        """Nobody writes yet."""
        self._inside = Lock()  # held for the two fields below
        self._queue = deque[Event]()
        self._busy = False
        self._group: _Group | None = None  # of whoever has the turn

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._queue)

    @contextmanager
    def writing(self, engine: Engine) -> Generator[Connection]:
        """A turn to write the engine's database. Durable once the block has ended; undone if it raised.

        Raises:
            sqlalchemy.exc.DBAPIError: the database refused the work or the commit.
        """
        self._wait_for_turn()
        try:
            group = self._group = self._group or _Group.begun(engine)
            group.members += 1
            savepoint = group.connection.begin_nested()
            try:
                yield group.connection
                savepoint.commit()
            except BaseException as error:
                group.failed(error)
                if group.error is None:
                    savepoint.rollback()
                raise
        finally:
            self._pass_on()
        group.over.wait()
        if group.error is not None:
            raise group.error

    def _wait_for_turn(self) -> None:
        mine = Event()
        with self._inside:
            if not self._busy:
                self._busy = True
                return
            self._queue.append(mine)
        try:
            mine.wait()
        except BaseException:
            with self._inside:
                if mine in self._queue:
                    self._queue.remove(mine)
                    raise
            self._pass_on()  # the turn came meanwhile, and maybe the commit for those before
            raise

    def _pass_on(self) -> None:
        """Let the next one on; commit first where nobody waits, enough have written or the transaction is lost."""
        group = self._group
        if group and (group.members >= MOST or group.error is not None or not self._next()):
            self._group = None
            try:
                group.finish()
            finally:
                self._next(otherwise_free=True)
        elif group is None:
            self._next(otherwise_free=True)

    def _next(self, *, otherwise_free: bool = False) -> bool:
        """Give the turn to the first who waits; False where nobody does."""
        with self._inside:
            if self._queue:
                self._queue.popleft().set()
                return True
            if otherwise_free:
                self._busy = False
            return False


_WRITERS: WeakKeyDictionary[Engine, Writers] = WeakKeyDictionary()
_WRITERS_LOCK = Lock()


def writers_of(engine: Engine) -> Writers:
    """The writers of an engine, the same for all its threads."""
    with _WRITERS_LOCK:
        return _WRITERS.setdefault(engine, Writers())
