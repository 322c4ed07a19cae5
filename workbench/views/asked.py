"""What people asked a runner for, whether there is one, and the thresholds they set."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from preference_data.requests import Request, Requests
from workbench.config import GateSettings
from workbench.errors import JournalError

LOCK = "runner.lock"


@contextmanager
def sole_runner(root: Path) -> Iterator[None]:
    """Be the one runner of a workspace; a killed one lets go.

    Raises:
        JournalError: another process is.
    """
    with (root / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise JournalError(
                f"{root}: {file.read() or 'another process'} acts on requests here; stop it first"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        yield


def runner_alive(root: Path) -> bool:
    """Whether somebody acts on requests of a workspace."""
    try:
        with (root / LOCK).open("r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False


class Thresholds(NamedTuple):
    """Thresholds of the gate, and who set them when; nobody where they are the defaults."""

    gate: GateSettings
    by: str
    at: str
    reason: str


def thresholds(requests: Requests) -> list[Thresholds]:
    """The gate's thresholds, newest first; the defaults come last."""
    filed: list[Request] = [r for r in requests.all() if r.kind == "threshold" and r.state == "done"]
    found = [
        Thresholds(
            GateSettings.model_validate(r.payload["gate"]),
            r.by,
            r.at.isoformat(timespec="minutes"),
            r.payload.get("reason", ""),
        )
        for r in reversed(filed)
    ]
    return [*found, Thresholds(GateSettings(), "", "", "")]
