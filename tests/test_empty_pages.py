"""What the drift, rounds and compare pages say where there is little to show: what to do next."""

import pytest

from preference_data.records import canonical_json
from tests.drift_kit import PLAIN, World
from tests.page_kit import client
from tests.small_round import write_base
from tests.test_drift_page import drift_served
from workbench.reports.document import html_report
from workbench.rounds.plan import plan_as_json, plan_digest
from workbench.workspace import Workspace


def pages(ws, *paths):
    """Pages of a workspace, by their address."""
    with drift_served(ws) as url, client(url) as web:
        found = {path: web.get(path) for path in paths}
    assert {path: page.status_code for path, page in found.items()} == dict.fromkeys(paths, 200)
    return {path: page.text for path, page in found.items()}


ALL = ("/drift", "/drift/people", "/drift/averages", "/rounds", "/compare")


def test_without_any_version_every_page_says_how_to_come_by_one(tmp_path):
    ws = Workspace.init(tmp_path / "ws", base=write_base(tmp_path / "base"), name="tiny")
    found = pages(ws, *ALL)
    assert "workbench import FILE" in found["/drift"]
    assert "workbench freeze --name NAME" in found["/drift"]
    assert "No version was taught and no suite was measured yet" in found["/drift"]
    assert "No round has taught a version yet" in found["/drift/people"]
    assert "There is no version to train on" in found["/rounds"]
    assert "There is one policy so far" in found["/compare"]
    assert "Nobody has judged answers of two policies yet" in found["/compare"]
    assert "preference for tiny over tiny" not in found["/compare"]


def test_with_a_version_and_no_round_a_first_one_is_planned(tmp_path):
    found = pages(World(tmp_path).ws, *ALL)
    assert "see what a first round would cost" in found["/drift"]
    assert "No round yet. Plan one below" in found["/rounds"]
    assert "There is no version" not in found["/rounds"]


@pytest.mark.parametrize(
    ("state", "said"), [("failed", "(failed: the loss is not finite)"), ("", "(not ended)")], ids=["failed", "begun"]
)
def test_a_first_round_without_a_child_is_told_instead_of_planned_once_more(tmp_path, state, said):
    world = World(tmp_path)
    plan = world.plan(world.base, PLAIN)
    world.ws.journal.begin(plan_digest(plan), 1, canonical_json(plan_as_json(plan)))
    if state:
        world.ws.journal.finish(plan_digest(plan), state, message="the loss is not finite")
    found = pages(world.ws, *ALL)
    assert f"round 1 has no child yet {said}" in found["/drift"]
    assert "see what a first round would cost" not in found["/drift"]
    assert f'<a href="/rounds/{plan_digest(plan)}">go on with it</a>' in found["/rounds"]
    assert f"round 1 has no child yet {said}" in html_report(world.ws, "base")


def test_a_policy_is_not_compared_with_itself(tmp_path):
    world = World(tmp_path)
    world.child(world.plan(world.base, PLAIN), 1.0)
    page = pages(world.ws, "/compare?first=base&second=base")["/compare?first=base&second=base"]
    assert "Choose two different policies" in page
    assert "preference for tiny over tiny" not in page
