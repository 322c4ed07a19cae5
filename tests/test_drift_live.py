"""Parts of the drift page that come once it is shown: made anew where what they are of changed, and only there."""

import re

import pytest

import ui.drift
from tests.drift_kit import LATER, PLAIN, POLITE, World, items, retention
from tests.page_kit import client
from tests.test_drift_page import drift_served
from workbench.rounds.plan import measuring_condition


@pytest.fixture
def world(tmp_path):
    """Two rounds; the second was not measured on the first's version."""
    world = World(tmp_path)
    first_plan = world.plan(world.base, PLAIN)
    world.condition = measuring_condition(first_plan)
    world.first = world.child(first_plan, 1.0)
    world.plan_of_second = world.plan(world.first, POLITE)
    world.second = world.child(world.plan_of_second, 2.0)
    world.record(world.base, retention(PLAIN, 10), retention(POLITE, 8))
    world.record(world.first, retention(PLAIN, 16), retention(POLITE, 6))
    world.record(world.second, retention(POLITE, 15))
    return world


def average(web, name):
    return re.search(rf'<th scope="row">{name}</th><td>([^<]*)</td>', web.get("/drift/averages?policy=round-2").text)[1]


def test_a_page_hears_that_parts_fetched_later_may_have_changed(world):
    with drift_served(world.ws) as url, client(url) as web:
        page = web.get("/drift?policy=round-2").text
        before = web.get("/drift/state").json()["late"]
        assert f'"late": "{before}"' in page
        assert web.get("/drift/state").json()["late"] == before
        assert not average(web, "BWT").startswith("-")
        world.record(world.second, retention(PLAIN, 14))
        assert web.get("/drift/state").json()["late"] != before
        assert average(web, "BWT").startswith("-0.100 [")  # 14 of 20 right after 16


def test_averages_are_not_computed_anew_for_what_they_are_not_of(world, monkeypatch):
    made = []
    real = ui.drift.averages_of
    monkeypatch.setattr(ui.drift, "averages_of", lambda view, ledger: made.append(view) or real(view, ledger))
    with drift_served(world.ws) as url, client(url) as web:
        average(web, "Last")
        # A round that runs measures its child, and suites of others.
        other = world.child(world.plan(world.second, LATER), 3.0)
        world.record(other, retention(PLAIN, 12))
        world.record(world.second, items("skill", "correct", [1.0] * 9))
        average(web, "Last")
        assert len(made) == 1
        world.record(world.second, retention(PLAIN, 14))
        average(web, "Last")
        assert len(made) == 2


def test_a_gate_that_judges_while_the_page_is_open_has_a_place_on_it(world):
    with drift_served(world.ws) as url, client(url) as web:
        assert '<section data-part="gate"></section>' in web.get("/drift?policy=round-2").text
        world.finish(world.plan_of_second, world.second)
        assert "<h2>Gate: failed</h2>" in web.get("/drift/part/gate?policy=round-2").text
