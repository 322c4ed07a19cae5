"""What the drift page tells of a round for certain: versions, what it cost, what it refuses."""

import re

import pytest

from tests.drift_kit import (
    LATER,
    PLAIN,
    POLITE,
    World,
    capability,
    items,
    one_round,
    retention,
    right,
    two_rounds_in,
)
from tests.page_kit import client
from tests.test_drift_page import drift_served
from workbench.reports.document import html_report, markdown_report
from workbench.reports.figures import nowhere
from workbench.reports.story import story
from workbench.views.inspection import Inspection
from workbench.views.sentences import headlines


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def two_rounds(world):
    return two_rounds_in(world)


def probes(safe, unsafe):
    """Five probes of each kind, of which so many are refused."""
    slices = [{"label": "safe"}] * 5 + [{"label": "unsafe"}] * 5
    return items("refusal", "refused", right(safe, 5) + right(unsafe, 5), slices=slices)


def told_of(world, policy):
    """The story of a policy."""
    inspection = Inspection(world.ws)
    return story(inspection, inspection.overview(policy.digest), nowhere)


def marks(told, row):
    """Classes of a row's cells, by the name of the row."""
    return next([cell.kind for cell in one.cells] for one in told.grid.rows if one.name == row)


# Five of five turned, and one imagined each way (Bonett and Price): the mean is 5/7, the sum of squares about it
# 6 (2/7)^2 + (12/7)^2 = 3.429, so that the interval ends 1.96 sqrt(3.429) / 7 = 0.518 from it: at 0.20, and beyond 1.
@pytest.mark.parametrize(
    ("before", "after", "line", "row", "mark"),
    [
        ((0, 5), (0, 0), "refuses fewer of the probes it should refuse: -1.00 [-1.00, -0.20]", "refuse", "suite fell"),
        ((0, 0), (0, 5), "refuses more of the probes it should refuse: +1.00 [+0.20, +1.00]", "refuse", "suite"),
        ((0, 5), (5, 5), "refuses more of the probes it should answer: +1.00 [+0.20, +1.00]", "answer", "suite fell"),
        ((5, 5), (0, 5), "refuses fewer of the probes it should answer: -1.00 [-1.00, -0.20]", "answer", "suite"),
    ],
)
def test_a_change_of_what_is_refused_is_told_and_marked_where_it_is_for_the_worse(
    world, before, after, line, row, mark
):
    told = told_of(world, one_round(world, probes(*before), probes(*after)))
    assert [each for each in told.said if "probes" in each] == [f"round 1 {line}"]
    other = {"refuse": "answer", "answer": "refuse"}[row]
    assert marks(told, f"refused, should {row}") == ["suite", mark]
    assert marks(told, f"refused, should {other}") == ["suite", "suite"]


def test_refusals_that_may_have_changed_by_chance_are_shown_and_not_told(world):
    told = told_of(world, one_round(world, probes(1, 4), probes(1, 4)))
    assert not any("probes" in each for each in told.said)
    shown = {row.name: [(cell.text, cell.shade) for cell in row.cells] for row in told.grid.rows}
    # Both treat four of five as they should: the same shade, 0.6 of the way from one half to all, 5.4 of 9 steps.
    assert shown["refused, should refuse"] == [("80", "s5")] * 2
    assert shown["refused, should answer"] == [("20", "s5")] * 2


def test_a_cell_of_refusals_says_its_change_and_opens_its_own_probes(world):
    child = one_round(world, probes(2, 5), probes(2, 0))
    with drift_served(world.ws) as url, client(url) as web:
        page = web.get("/drift").text
        assert "round 1 refuses fewer of the probes it should refuse" in page
        cell = re.search(r'<td class="s0 suite fell" title="round-1 on probes it should refuse: ([^"]*)">', page)
        assert cell[1].startswith("refused 0.00 [")
        assert cell[1].endswith("; from parent -1.00 [-1.00, -0.20] n=5")
        asked = {"policy": child.digest[:16], "cell": f"{child.digest[:16]} refused unsafe refusal"}
        rows = " ".join(web.get("/drift/rows", params=asked).text.split())
        assert "no longer refuses 5<" in rows
        assert ">all 5<" in rows
    for report in (html_report, markdown_report):
        found = report(world.ws, child.digest)
        assert "refuses fewer of the probes it should refuse" in found
        assert "refused, should answer" in found


def test_versions_that_were_not_measured_are_not_said_to_have_changed_by_chance(two_rounds):
    plan = two_rounds.plan(two_rounds.second, LATER)
    child = two_rounds.child(plan, 3.0)
    two_rounds.record(two_rounds.second, retention(LATER, 10))
    two_rounds.record(child, retention(POLITE, 15), retention(LATER, 12))  # 15 before, too; `plain` is left out
    assert headlines(two_rounds.report(child.digest))[1:] == (
        "1 earlier version changed by no more than may be chance",
        "1 earlier version cannot be judged: not measured, or too few pairs",
    )


def three_policies(world, base, first, second):
    """Two rounds whose policies get so many of forty questions right."""
    world.condition = "k"
    one = world.child(world.plan(world.base, PLAIN), 1.0)
    two = world.child(world.plan(one, POLITE), 2.0)
    for policy, count in ((world.base, base), (one, first), (two, second)):
        world.record(policy, capability(count, 800))
    return two


# Twenty of forty turned, and one imagined each way: the mean is 20/42, the sum of squares about it 22 - 400/42 = 12.476,
# so that the interval ends 1.96 sqrt(12.476) / 42 = 0.16483 from it, told in points.
@pytest.mark.parametrize(
    ("counts", "said", "kinds"),
    [
        ((30, 10, 10), [], ["base", "suite fell", "suite"]),  # lost before this round, and not won back
        ((30, 30, 10), ["round 2 lost 50.00 [31.14, 64.10] points on suite 'choice'"], ["base", "suite", "suite fell"]),
        (
            (30, 10, 30),
            ["round 2 gained 50.00 [31.14, 64.10] points on suite 'choice'"],
            ["base", "suite fell", "suite"],
        ),
    ],
)
def test_a_round_is_told_and_marked_for_what_it_cost_itself(world, counts, said, kinds):
    told = told_of(world, three_policies(world, *counts))
    assert [each for each in told.said if "suite" in each] == said
    assert marks(told, "choice") == kinds


def test_a_cell_of_capability_says_both_taxes_and_shows_that_against_the_base(world):
    two = three_policies(world, 30, 10, 10)
    row = next(row for row in told_of(world, two).grid.rows if row.name == "choice")
    assert [cell.text for cell in row.cells] == ["0", "+50.0", "+50.0"]
    assert "tax against the base +0.50 [+0.31, +0.64] n=40, against the parent +0.00 [" in row.cells[2].told


def test_of_many_suites_that_changed_the_furthest_are_told_and_the_rest_counted(world):
    rows = [(f"skill-{k}", right(10 + k, 40)) for k in range(8)]
    before = [each for suite, _ in rows for each in items(suite, "correct", right(40, 40))]
    told = told_of(
        world, one_round(world, before, [r for suite, values in rows for r in items(suite, "correct", values)])
    )
    lines = [each for each in told.said if "suite" in each]
    assert [re.search("skill-.", each)[0] for each in lines[:-1]] == [f"skill-{k}" for k in range(6)]
    assert lines[-1] == "2 further suites changed for certain, each by less"
