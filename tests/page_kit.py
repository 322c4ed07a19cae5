"""A store with one project behind the page's real server, and a real browser in front of it."""

import os
import socket
import threading
import time
from contextlib import ExitStack, contextmanager

import httpx
import pytest
import uvicorn

from preference_data.projects import Projects, ProjectSettings
from preference_data.queue import Candidate, Queue
from preference_data.records import Comparison, Completion, Imported, Prompt
from preference_data.store import Entry, Store
from ui.app import make_app
from workbench.bench.page_browser import chromium
from workbench.errors import WorkbenchError
from workbench.views.inspection import Inspection

REQUIRED = "WORKBENCH_BROWSER_TESTS"
"""Set to `required`, a machine without a browser fails the tests instead of skipping them."""


class Page:
    """A store with one project `p`, and the page that serves it."""

    def __init__(self, folder, mode="pairwise", **settings):
        self.store = Store.open(f"sqlite:///{folder}/p.db")
        self.projects, self.queue = Projects(self.store.engine), Queue(self.store.engine)
        self.projects.create("p", mode, guideline="Be *fair*.", settings=ProjectSettings(**settings), by="lead")

    def ask(self, *comparisons, **options):
        """Put comparisons into the queue."""
        self.store.add(Entry(c, ()) for c in comparisons)
        self.queue.add("p", [Candidate(comparison=c.key, **options) for c in comparisons], by="lead")

    def judgements(self):
        """All that were stored, oldest first."""
        found = [j for entry in self.store.entries(superseded=True) for j in entry.judgements]
        return sorted(found, key=lambda judgement: judgement.at)


def compare(number, first="", second="", prompt="", **slices):
    """A comparison of two answers by policies whose names nobody may see."""
    texts = (first or f"first answer to {number}", second or f"second answer to {number}")
    made = tuple(Completion(t, Imported("secret-source", f"secret-policy-{k}")) for k, t in enumerate(texts))
    return Comparison(Prompt.of(prompt or f"question {number}?"), made, "secret-file", slices)


@contextmanager
def running(make):
    """The address of a server in this process; `make` gives its application for a host with a port."""
    listening = socket.create_server(("127.0.0.1", 0))
    host = f"127.0.0.1:{listening.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(make(host), log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://{host}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def served(store, *, person="ann", arena=None):
    """The address of the page's server, running in this process."""
    return running(lambda host: make_app(store, person=person, hosts=[host], arena=arena))


def drift_served(ws, **options):
    """The page with its drift pages, over a workspace."""
    return running(
        lambda host: make_app(
            ws.store, person="ann", hosts=[host], workspace=str(ws.root), inspection=Inspection(ws), **options
        )
    )


def client(url):
    """What a browser sends along."""
    return httpx.Client(base_url=url, headers={"origin": url}, timeout=30)


@contextmanager
def browser():
    """Chromium; skips where there is none, and fails there if browser tests are required."""
    with ExitStack() as stack:
        try:
            found = stack.enter_context(chromium())
        except WorkbenchError as error:
            give_up = pytest.fail if os.environ.get(REQUIRED) == "required" else pytest.skip
            give_up(str(error))
        yield found
