"""Rounds as they go: what is done of each step, how fast it learns, when it will end."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from workbench.rounds.journal import FINAL, Journal, RoundRecord
from workbench.rounds.progress import Event
from workbench.views.inspection import Inspection

LOG = 30
"""Latest events that are shown."""


class Bar(NamedTuple):
    """A step: done of total, and what it last said."""

    name: str
    done: int
    total: int
    facts: Mapping[str, float]


class Watched(NamedTuple):
    """A round.

    Attributes:
        state: as in the journal; `running` while somebody works on it, `left` where nobody does and it has not ended.
        version: what people call what it trains on.
        bars: one per kind of step, in the order they began.
        curve: by optimizer step, what training said.
        log: the latest events, newest first.
        seconds: from begin to end, or until now.
    """

    record: RoundRecord
    state: str
    stopping: bool
    version: str
    bars: tuple[Bar, ...]
    curve: tuple[tuple[int, Mapping[str, float]], ...]
    log: tuple[tuple[str, str], ...]
    seconds: float

    @property
    def can_go_on(self) -> bool:
        """Whether running it again would do anything."""
        return self.state in {"left", "stopped", "failed"}


def state_of(journal: Journal, record: RoundRecord) -> tuple[str, bool]:
    """State of a round for people, and whether it was asked to stop."""
    if record.state in FINAL:
        return record.state, False
    status = journal.status(record.digest)
    if any(step.alive for step in status.steps):
        return "running", status.stop_requested
    return ("left" if record.state in {"planned", "running"} else record.state), False


def watched(inspection: Inspection, record: RoundRecord) -> Watched:
    """A round with its progress."""
    journal = inspection.places.journal
    events = journal.events(record.digest)
    state, stopping = state_of(journal, record)
    plan: Mapping[str, Any] = json.loads(record.plan)
    return Watched(
        record=record,
        state=state,
        stopping=stopping,
        version=inspection.names().get(plan["version"]) or str(plan["version"])[:12],
        bars=_bars(events),
        curve=curve_of(events),
        log=tuple((_clock(e.at), _line(e)) for e in reversed(events[-LOG:])),
        seconds=_seconds(record),
    )


def _bars(events: Sequence[Event]) -> tuple[Bar, ...]:
    latest: dict[str, Bar] = {}
    for event in events:
        p = event.progress
        latest[p.step] = Bar(p.step, p.done, p.total, p.facts)
    return tuple(latest.values())


def curve_of(events: Sequence[Event]) -> tuple[tuple[int, Mapping[str, float]], ...]:
    """Steps of training; of those done twice, after a stop, the last."""
    found = {e.progress.done: e.progress.facts for e in events if e.progress.step == "optimise" and e.progress.facts}
    return tuple(sorted(found.items()))


def _line(event: Event) -> str:
    facts = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in event.progress.facts.items())
    return f"{event.progress.step} {event.progress.done}/{event.progress.total}" + (f": {facts}" if facts else "")


def _clock(at: str) -> str:
    return at[11:19]


def _seconds(record: RoundRecord) -> float:
    end = datetime.fromisoformat(record.ended_at) if record.ended_at else datetime.now(UTC)
    return (end - datetime.fromisoformat(record.started_at)).total_seconds()
