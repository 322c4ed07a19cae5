"""What a round turned, pair by pair: b, c and p of McNemar's test, and how sure the parent was of what was lost."""

import re
from html import unescape

from tests import drift_kit
from tests.test_figures import lineage, link, sure
from tests.test_numbers import section
from tests.test_opened import cells
from workbench.drift.uncertainty import not_enough, proportion
from workbench.reports.document import html_report, markdown_report
from workbench.reports.turned import turns

world, web = drift_kit.world, drift_kit.web

# Of twenty pairs of `plain` round 1 had sixteen right and round 2 fourteen, of `polite`, its own, six and fifteen. All
# margins are 1 or -1, and of equal ones the first count as lower: the sixteenth and fifteenth, which turned, are in the
# highest quarter.
PLAINS = ["2", "0", "0.500", "0 of 5", "0 of 5", "0 of 5", "2 of 5"]  # 2 x 0.5^2
POLITES = ["0", "9", "0.004", "0 of 5", "0 of 5", "0 of 5", "0 of 5"]  # 2 x 0.5^9


def test_the_page_says_what_turned_of_every_version_its_own_first(web, world):
    table = web.get("/drift/part/turned").text
    assert re.findall(r'<th scope="row">(\w+)</th>', table) == ["polite", "plain"]
    assert [cells(table, version)[:7] for version in ("plain", "polite")] == [PLAINS, POLITES]
    assert cells(table, "plain")[7].startswith("-0.100 [")
    assert "McNemar&#39;s exact test, two-sided, pairs taken as independent" in table
    assert 'title="of 20 pairs">2<' in table
    assert re.search(r'title="0\.400 \[[^"]*\] n=5"><a href="([^"]*)">2 of 5</a>', table)
    assert '<section data-part="turned"><h2>Pairs that turned, against the parent</h2>' in web.get("/drift").text


def test_cells_of_the_newest_rounds_say_what_turned(web, world):
    titles = [unescape(title) for title in re.findall(r'<td class="[^"]*" title="([^"]*)"', web.get("/drift").text)]
    said = {title.partition(":")[0]: title.rpartition("; ")[2] for title in titles}
    assert said["round-2 on plain"] == "0 wrong -> right, 2 right -> wrong (McNemar p = 0.500)"
    assert said["round-1 on plain (trained on it)"] == "6 wrong -> right, 0 right -> wrong (McNemar p = 0.031)"


def test_both_reports_have_the_table(world):
    found = html_report(world.ws, "champion")
    table = found.partition("Pairs that turned, against the parent")[2].partition("</section>")[0]
    assert [cells(table, version)[:7] for version in ("plain", "polite")] == [PLAINS, POLITES]
    assert "<a " not in table
    rows = section(markdown_report(world.ws, "champion"), "Pairs that turned, against the parent")
    (row,) = (line for line in rows if line.startswith("| plain |"))
    # Of five none: z^2 / (5 + z^2) = 3.8415 / 8.8415 = 0.434 (Wilson).
    none = "0.000 [0.000, 0.434] n=5"
    assert row.startswith(f"| plain | 2 | 0 | 20 | 0.500 | {none} | {none} | {none} | 0.400 [")
    assert "McNemar's exact test" in rows[1]
    assert "Pairs that turned" not in html_report(world.ws, "base") + markdown_report(world.ws, "base")


def test_of_many_versions_the_furthest_are_told_and_one_without_numbers_says_so():
    changes = {("p25", "from parent", f"retention/v{t}"): sure(0.01 * t) for t in range(2, 26)}
    few = {("p25", "lost quartile 1", "retention/v24"): not_enough(3, "3 independent groups"),
           ("p25", "lost quartile 2", "retention/v24"): proportion(1, 5)}  # fmt: skip
    told = turns(lineage(25, changes | few), link)
    assert [one.name for one in told] == ["version-25", *(f"version-{t}" for t in range(24, 5, -1))]
    assert [(each.text, each.href) for each in told[1].quarters] == [
        ("too few", "?p25:lost quartile 1:retention/v24"), ("1 of 5", "?p25:lost quartile 2:retention/v24"),
        ("", None), ("", None),
    ]  # fmt: skip
    (alone,) = turns(lineage(1, {}), link)
    assert (alone.change, alone.lost, alone.gained, alone.p) == ("not measured", "", "", "")
    assert turns(lineage(0, {}), link) == ()


def test_a_table_that_leaves_versions_out_says_of_how_many(web, world, monkeypatch):
    monkeypatch.setattr("workbench.reports.turned.MOST_ROWS", 1)
    table = web.get("/drift/part/turned", params={"against": "base"}).text  # a view that nobody prepared
    assert "The 1 of 2 versions that changed furthest." in table
    assert re.findall(r'<th scope="row">(\w+)</th>', table) == ["polite"]


def test_what_turned_in_a_slice_is_told_of_the_slice(web, world):
    asked = {"within": "language=de", "against": "base"}  # no pair is German
    for part in ("turned", "against"):
        table = web.get(f"/drift/part/{part}", params=asked).text
        assert [cells(table, version)[:3] for version in ("plain", "polite")] == [[""] * 3] * 2
