"""A store with much to judge and many who may judge it, behind the page's real server in a process of its own."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from preference_data.accounts import Accounts
from preference_data.asking import ask
from preference_data.projects import ProjectSettings
from preference_data.records import Comparison, Completion, Imported, Prompt
from preference_data.store import Entry, Store
from workbench.errors import WorkbenchError

PROJECT = "bench"
START_S = 60.0
_PARAGRAPH = "The answer weighs both sides, says what is **known**, and `names` what is not. " * 6


class World:
    """The store of a benchmark in a folder."""

    def __init__(self, folder: Path, *, items: int, overlap: int, people: int) -> None:
        """Fill a new store."""
        self.url = f"sqlite:///{folder / 'preferences.db'}"
        self.port = free_port()
        with Store.open(self.url) as store:
            store.add(Entry(_comparison(number), ()) for number in range(items))
            ask(store, PROJECT, "pairwise", guideline="Prefer what *helps*.", settings=ProjectSettings(overlap=overlap),
                by="bench")  # fmt: skip
            accounts = Accounts(store.engine)
            self.tokens = dict[str, str]()
            for number in range(people):
                name = f"person-{number}"
                accounts.create(name, None, by="bench")
                self.tokens[name] = accounts.begin(name)

    @property
    def address(self) -> str:
        """Where the page is served."""
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def serving(self) -> Iterator[psutil.Process]:
        """The server's process, up; ended with the block."""
        process = self.start()
        try:
            yield psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)

    def start(self) -> subprocess.Popen[bytes]:
        """Start the server and wait until it answers."""
        command = [sys.executable, "-m", "ui", "--port", str(self.port)]
        process = subprocess.Popen(
            command, env={**os.environ, "WORKBENCH_DATABASE": self.url}, stdout=subprocess.DEVNULL
        )
        end = time.monotonic() + START_S
        while time.monotonic() < end and process.poll() is None:
            try:
                if httpx.get(f"{self.address}/healthz").status_code == httpx.codes.OK:
                    return process
            except httpx.TransportError:
                time.sleep(0.05)
        process.kill()
        raise WorkbenchError(f"the page did not start within {START_S:.0f} s; try `workbench page` by hand")

    def leases_judged(self) -> list[int]:
        """The lease of every judgement stored, corrections left out."""
        with Store.open(self.url) as store:
            said = (j for entry in store.entries(superseded=True) for j in entry.judgements if not j.supersedes)
            return [j.extra["lease"] for j in said]


def loads(process: psutil.Process, name: str) -> bool:
    """Whether a process has mapped a library whose path has this word in it."""
    return any(re.search(rf"\b{name}\b", each.path) for each in process.memory_maps())


def memory_mb(process: psutil.Process) -> float:
    """What a process holds in memory, in MB."""
    return process.memory_info().rss / 1e6


def _comparison(number: int) -> Comparison:
    texts = (f"First answer to {number}.\n\n{_PARAGRAPH * 4}", f"Second answer to {number}.\n\n- {_PARAGRAPH * 4}")
    made = tuple(Completion(text, Imported("bench", f"policy-{k}")) for k, text in enumerate(texts))
    return Comparison(Prompt.of(f"Question {number}: what holds, and why?"), made, "bench")


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]
