"""Who works on a step: owners, leases and the thread that keeps one alive."""

import logging
import os
import platform
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from preference_data.errors import StoreError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds that govern a journal; tests shorten them.

    Attributes:
        lease: how long a claim holds without a sign of life.
        heartbeat: between signs of life.
        patience: how long to wait for a step somebody else holds; longer than a lease, so that the dead are outlived.
        poll: between looks at a step somebody else holds.
        report: between progress events, and between looks at the stop flag.
    """

    lease: float = 60.0
    heartbeat: float = 10.0
    patience: float = 90.0
    poll: float = 0.5
    report: float = 0.5


def this_process() -> str:
    """Name of this process as an owner: host, process id and its start, since ids are used again."""
    return f"{platform.node()}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def is_gone(owner: str) -> bool:
    """Whether an owner is known to be dead: a process of this host that runs no more. Others may be alive."""
    host, _, rest = owner.rpartition(":")[0].rpartition(":")
    started = owner.rpartition(":")[2]
    if host != platform.node() or not rest.isdigit():
        return False
    try:
        process = psutil.Process(int(rest))
        return f"{process.create_time():.2f}" != started or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def heartbeat(beat: Callable[[], bool], every_s: float) -> Generator[threading.Event]:
    """Call `beat` from a thread while the body runs.

    Args:
        beat: renews a lease; answers False once the lease belongs to somebody else.
        every_s: seconds between calls.

    Yields:
        An event that is set when the lease is lost.
    """
    lost, ended = threading.Event(), threading.Event()

    def keep_alive() -> None:
        while not ended.wait(every_s):
            try:
                alive = beat()
            except StoreError as error:
                log.warning("lease not renewed, trying again in %.0f s: %s", every_s, error)
                continue
            if not alive:
                lost.set()
                return

    thread = threading.Thread(target=keep_alive, name="lease", daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        ended.set()
        thread.join()
