"""Progress of a round as events in the database, and the stop flag beside them."""

import math
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import Engine, delete, insert, select

from preference_data.database import insert_missing, reading, writing
from workbench.errors import JournalError
from workbench.schema import event, stop, timestamp
from workbench.tasks import Progress


class Event(NamedTuple):
    """A recorded progress: its position in the log, when (UTC, ISO 8601), and what."""

    id: int
    at: str
    progress: Progress


class Reporter:
    """Writes progress events of one round at a bounded rate and answers whether the round should stop.

    The first event of a step and the one that completes it are always written.

    Args:
        round_digest: the round.
        every_s: least seconds between two other events, and between looks at the stop flag.
        lost: answers whether the step has been taken over by somebody else.
    """

    def __init__(
        self, engine: Engine, round_digest: str, *, every_s: float, lost: Callable[[], bool] = lambda: False
    ) -> None:
        self._engine, self._round, self._every_s, self._lost = engine, round_digest, every_s, lost
        self._lock = threading.Lock()
        self._steps: set[str] = set()
        self._written = self._looked = -math.inf
        self._stop = False

    def __call__(self, progress: Progress) -> bool:
        """Record progress; answers True where somebody asked the round to stop.

        Raises:
            JournalError: the step has been taken over; going on would be for nothing.
        """
        if self._lost():
            raise JournalError(
                f"step {progress.step} of round {self._round[:12]} was taken over by another process while this one "
                "did not answer; nothing of this attempt is kept; leave the other to finish"
            )
        with self._lock:
            moment = time.monotonic()
            ends = progress.step not in self._steps or 0 < progress.total <= progress.done
            if ends or moment - self._written >= self._every_s:
                self._steps.add(progress.step)
                self._written = moment
                append_event(self._engine, self._round, progress)
            if moment - self._looked >= self._every_s:
                self._looked = moment
                self._stop = stop_requested(self._engine, self._round)
            return self._stop


def append_event(engine: Engine, round_digest: str, progress: Progress) -> None:
    """Record one progress event. Numbers that are not finite are kept as text, since JSON has no word for them."""
    facts: dict[str, Any] = {k: v if math.isfinite(v) else str(v) for k, v in progress.facts.items()}
    row = {**progress._asdict(), "facts": facts, "round": round_digest, "at": timestamp()}
    with writing(engine) as connection:
        connection.execute(insert(event).values(row))


def read_events(engine: Engine, round_digest: str, after: int) -> list[Event]:
    """Events of a round beyond position `after`, oldest first."""
    query = select(event).where(event.c.round == round_digest, event.c.id > after).order_by(event.c.id)
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    return [Event(r.id, r.at, Progress(r.step, r.done, r.total, _numbers(r.facts))) for r in rows]


def stop_requested(engine: Engine, round_digest: str) -> bool:
    """Whether somebody asked the round to stop."""
    with reading(engine) as connection:
        return connection.execute(select(stop.c.round).where(stop.c.round == round_digest)).first() is not None


def set_stop(engine: Engine, round_digest: str, by: str) -> None:
    """Ask a round to stop; asking twice is asking once."""
    with writing(engine) as connection:
        insert_missing(connection, stop, [{"round": round_digest, "by": by, "at": timestamp()}])


def unset_stop(engine: Engine, round_digest: str) -> None:
    """Take the request to stop back."""
    with writing(engine) as connection:
        connection.execute(delete(stop).where(stop.c.round == round_digest))


def _numbers(facts: dict[str, float | str]) -> dict[str, float]:
    return {name: float(value) for name, value in facts.items()}
