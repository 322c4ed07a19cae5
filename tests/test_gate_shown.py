"""What the gate judged, named where its lines stand: on the pages, in the report and in the terminal."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from tests.drift_kit import World, one_round
from tests.page_kit import client
from tests.test_drift_page import drift_served
from workbench.cli import app
from workbench.cli.rounds import _gate
from workbench.reports.document import html_report, markdown_report
from workbench.reports.story import gate_heading
from workbench.rounds.gate import Verdict


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


@pytest.mark.parametrize(
    ("judged", "heading"),
    [("child", "Gate: round-1 failed"), ("q8_0", "Gate on the policy merged and rounded to q8_0: round-1 failed")],
)
def test_the_terminal_names_what_the_gate_judged(world, judged, heading):
    child = one_round(world, judged=judged)
    asked = ["drift", child.digest, "-w", str(world.ws.root)]
    assert heading in CliRunner().invoke(app, asked, catch_exceptions=False, env={"COLUMNS": "120"}).output
    found = CliRunner().invoke(app, [*asked, "--json"], catch_exceptions=False).stdout
    assert json.loads(found)["judged"] == judged
    rows = _gate(Verdict.from_json(world.ws.journal.rounds()[0].verdict), {}, judged)
    assert rows.renderables[0].plain == heading.partition(":")[0].lower()
