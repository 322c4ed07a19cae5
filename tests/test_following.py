"""`workbench round` where a runner lives: asked for and followed."""

import threading

import pytest
from typer.testing import CliRunner

from preference_data.requests import Requests
from tests.rounds_kit import settings, two_versions
from tests.tiny_model import build_tiny_model
from workbench.acting import act_on_requests
from workbench.cli import app
from workbench.config.written import as_toml
from workbench.errors import JournalError, StopRequested, WorkbenchError
from workbench.following import follow
from workbench.views.asked import sole_runner
from workbench.workspace import Workspace


@pytest.fixture
def ws(tmp_path):
    return two_versions(tmp_path / "ws", build_tiny_model(tmp_path / "model"))


class Runner:
    """Acts on requests in a thread, as `workbench runner` does in a process."""

    def __init__(self, root):
        self.root, self.over = root, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        own = Workspace(self.root)
        with sole_runner(self.root):
            act_on_requests(own, where="here", tell=lambda _: None, until=self.over.is_set)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def test_the_verb_hands_the_round_to_the_runner_and_shows_its_outcome(ws, tmp_path):
    file = tmp_path / "round.toml"
    file.write_text(as_toml(settings(version="polite")), encoding="utf-8")
    with Runner(ws.root) as runner:
        while not runner.thread.is_alive() or not (ws.root / "runner.lock").exists():
            pass
        done = CliRunner().invoke(app, ["round", "-s", str(file), "-w", str(ws.root)])
    assert done.exit_code == 0, done.output
    assert "it does the round, this follows" in done.output
    assert "promoted: round-1-" in done.output
    (request,) = Requests(ws.store.engine).all()
    assert (request.kind, request.state) == ("round", "done")
    (record,) = ws.journal.rounds()
    assert record.state == "promoted"


def alone(ws, **changes):
    return ws.round(ws.plan(settings(version="polite", **changes)))


def ended(ws, error):
    """Takes the request and says how it ended, as a runner would."""

    def act(_):
        requests = Requests(ws.store.engine)
        if request := requests.claim("runner"):
            requests.finish(request.key, by="runner", error=error)

    return act


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [("stopped: by hand", StopRequested, "by hand"), ("no room on the disk", WorkbenchError, "no room on the disk")],
)
def test_what_the_runner_says_is_raised(ws, error, kind, words):
    planned = alone(ws)
    with sole_runner(ws.root), pytest.raises(kind, match=words):
        follow(planned, by="me", watch=lambda _: None, sleep=ended(ws, error))


def test_a_runner_that_is_gone_leaves_the_request_for_the_next(ws):
    planned = alone(ws)
    with pytest.raises(JournalError, match="waits for the next one"):
        follow(planned, by="me", watch=lambda _: None)
    assert [r.state for r in Requests(ws.store.engine).all()] == ["filed"]


def test_the_runner_does_this_round_whatever_became_champion_meanwhile(ws):
    planned = alone(ws)
    other = ws.round(ws.plan(settings(version="short"))).run(where="here")
    assert ws.registry.resolve("champion").digest == other.child.digest
    left = iter([False, True])

    def act(_):
        act_on_requests(ws, where="here", tell=lambda _: None, until=lambda: next(left, True))

    with sole_runner(ws.root):
        outcome = follow(planned, by="me", watch=lambda _: None, sleep=act)
    assert outcome.round == planned.digest
    assert (outcome.state, outcome.child.parent) == ("kept", planned.plan.parent.digest)
    assert outcome.verdict == planned.run(where="here").verdict
