"""Who is told how a round ends, and trackers that training reports to."""

import http.server
import json
import sys
import threading
from importlib.machinery import ModuleSpec
from typing import ClassVar
from unittest.mock import MagicMock

import pytest

from tests.drift_kit import World, two_rounds_in
from workbench.alerts import message, require_trackers, tell, telling
from workbench.errors import ConfigError
from workbench.places import CONFIG, AlertSettings, Places


@pytest.fixture
def world(tmp_path):
    return two_rounds_in(World(tmp_path))


def settle(world, text):
    with (world.ws.root / CONFIG).open("a", encoding="utf-8") as file:
        file.write(text)
    return Places(world.ws.root)


def test_a_promoted_round_is_no_news_unless_it_came_near_a_threshold(world):
    first, second = world.ws.journal.rounds()
    assert [r.state for r in (first, second)] == ["promoted", "promoted"]
    assert message(first, AlertSettings()) is None
    # Round 2 lost 0.1 on `plain`, which is beyond 0.05 and may be chance, so that it passed.
    assert [n["criterion"].split("/")[0] for n in message(second, AlertSettings())["near"]] == ["retention"]
    assert message(first, AlertSettings(on="always"))["state"] == "promoted"


def test_lines_of_a_file_hold_what_failed_and_why(world):
    plan = world.plan(world.second, "c" * 64, gate={"min_gain": 0.9})
    child = world.child(plan, 3.0)
    from tests.drift_kit import retention

    world.record(world.second, retention("c" * 64, 10))
    world.record(child, retention("c" * 64, 12))
    world.finish(plan, child)
    places = settle(world, '[alerts]\nfile = "alerts.jsonl"\n')
    tell(places, places.journal.rounds()[-1])
    (line,) = (world.ws.root / "alerts.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert (told["state"], told["number"], told["policy"]) == ("rejected", 3, child.digest)
    assert "gain" in {f["criterion"] for f in told["failed"]}


class Listening(http.server.BaseHTTPRequestHandler):
    """Keeps what it is sent; the first time it is out of order."""

    got: ClassVar[list[bytes]] = []

    def do_POST(self):
        self.got.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(503 if len(self.got) == 1 else 200)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_webhook_is_tried_again_and_one_that_is_gone_ends_no_round(world):
    Listening.got = []
    server = http.server.HTTPServer(("127.0.0.1", 0), Listening)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/hook"
    places = settle(world, f'[alerts]\non = "always"\nwebhook = "{address}"\n')
    record = places.journal.rounds()[-1]
    with telling(places, record.digest):
        pass
    assert [json.loads(each)["round"] for each in Listening.got] == [record.digest] * 2
    server.shutdown()
    server.server_close()
    with telling(places, record.digest):  # nobody listens any more
        pass


@pytest.mark.parametrize("line", ['[alerts]\nwebhook = "ftp://x"', 'report_to = ["paper"]', "[alerts]\nnear = 0"])
def test_settings_that_are_wrong_are_told_at_once(world, line):
    with pytest.raises(ConfigError, match="workbench.toml"):
        settle(world, line + "\n")


def test_a_tracker_that_is_not_installed_is_refused_before_a_model_loads():
    with pytest.raises(ConfigError, match="pip install trackio"):
        require_trackers(["trackio"])
    require_trackers([])


@pytest.mark.slow
def test_training_tells_a_tracker_of_every_step_and_makes_the_same_child(tmp_path, monkeypatch):
    from tests.test_cli import SMALL, write_votes
    from tests.tiny_model import build_tiny_model
    from workbench.cli.settings import round_settings
    from workbench.workspace import Workspace

    fake = MagicMock()
    fake.__spec__ = ModuleSpec("trackio", None)
    monkeypatch.setitem(sys.modules, "trackio", fake)
    children = []
    base, votes = build_tiny_model(tmp_path / "base"), write_votes(tmp_path / "votes.jsonl", "yes", "no", count=30)
    for name, more in (("quiet", ""), ("told", 'report_to = ["trackio"]\n')):
        ws = Workspace.init(tmp_path / name, base=base)
        with (ws.root / CONFIG).open("a", encoding="utf-8") as file:
            file.write(more)
        ws = Workspace(ws.root)
        ws.import_file(votes)
        ws.freeze(name="first")
        settings = round_settings(None, assignments=[each.removeprefix("--set=") for each in SMALL])
        children.append(ws.round(ws.plan(settings)).run(where="here").child.digest)
    assert children[0] == children[1]
    losses = [call.args[0] for call in fake.log.call_args_list if "train/loss" in call.args[0]]
    assert len(losses) >= 2
