"""What the gate judged, named where its lines stand: on the pages and in the report."""

from dataclasses import replace

import pytest

from tests.drift_kit import World, one_round
from tests.page_kit import client
from tests.test_drift_page import drift_served
from workbench.reports.document import html_report, markdown_report
from workbench.reports.story import gate_heading


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.mark.parametrize(
    ("judged", "heading"),
    [
        ("child", "Gate: failed"),
        ("merged", "Gate on the policy merged into its base: failed"),
        ("q4_0", "Gate on the policy merged and rounded to q4_0: failed"),
    ],
)
def test_the_gate_says_what_it_judged(world, judged, heading):
    child = one_round(world, judged=judged)  # no KL was measured
    (record,) = world.ws.journal.rounds()
    assert gate_heading(record) == heading
    assert gate_heading(None) == gate_heading(replace(record, verdict=None)) == ""
    assert f"<h2>{heading}</h2>" in html_report(world.ws, child.digest)
    assert f"\n## {heading}\n" in markdown_report(world.ws, child.digest)


def test_pages_name_what_the_gate_judged(world):
    one_round(world, judged="bf16")
    (record,) = world.ws.journal.rounds()
    heading = "<h2>Gate on the policy merged and rounded to bf16: failed"
    with drift_served(world.ws) as url, client(url) as web:
        assert f"{heading}</h2>" in web.get("/drift").text
        assert f"{heading}, on all items</h2>" in web.get("/drift", params={"within": "language=de"}).text
        assert f"{heading}</h2>" in web.get(f"/rounds/{record.digest}").text
