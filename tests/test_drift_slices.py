"""One slice of a lineage, and a pinned baseline: what is told of it, and that choosing a policy keeps both."""

import re

import pytest

from tests.drift_kit import LATER, PLAIN, POLITE, World, items, retention
from tests.page_kit import client
from tests.test_drift_page import drift_served
from workbench.reports.figures import nowhere
from workbench.reports.story import story
from workbench.views.inspection import Inspection


@pytest.fixture
def sliced(tmp_path):
    """Two rounds; pairs of `plain` are German or French, those of `polite` Italian or French."""
    world = World(tmp_path)
    world.condition = "k"
    world.first = world.child(world.plan(world.base, PLAIN), 1.0)
    world.second = world.child(world.plan(world.first, POLITE), 2.0)
    for policy in (world.base, world.first, world.second):
        for version, language in ((PLAIN, "de"), (POLITE, "it")):
            slices = [{"language": language}] * 8 + [{"language": "fr"}] * 12
            world.record(policy, items(f"retention/{version}", "margin", [1.0] * 20, slices=slices))
    return world


def told_of(world, policy, **options):
    """The story of a policy."""
    inspection = Inspection(world.ws)
    return story(inspection, inspection.overview(policy.digest, **options), nowhere)


def test_no_pairs_in_a_slice_are_nothing_to_measure(sliced):
    told = told_of(sliced, sliced.second, within="language=de")
    assert not any("workbench evaluate" in step for step in told.steps)
    assert told.said[0].startswith("round 2 cannot be judged (not measured, or too few of language=de) on 'polite'")
    # What is measured of no policy is told where all items are looked at.
    version = sliced.child(sliced.plan(sliced.second, LATER), 3.0)
    sliced.record(version, retention(PLAIN, 12))
    assert any("workbench evaluate tiny --settings" in step for step in told_of(sliced, version).steps)


def test_a_slice_and_a_baseline_stay_chosen_though_the_policy_has_neither(sliced):
    first, second = sliced.first.digest[:16], sliced.second.digest[:16]
    with drift_served(sliced.ws) as url, client(url) as web:
        known = web.get("/drift", params={"policy": second, "within": "language=de", "against": "base"}).text
        assert known.count("<option selected>language=de</option>") == 1
        assert f'<option value="{sliced.base.digest[:16]}" selected>base</option>' in known
        other = web.get("/drift", params={"policy": first, "within": "language=<b>", "against": second}).text
        assert "<option selected>language=&lt;b&gt;</option>" in other
        assert f'<option value="{second}" selected>' in other
        assert "<b>" not in other


def test_a_number_against_a_pinned_baseline_is_of_the_slice_as_its_rows_are(sliced):
    cell = f"{sliced.second.digest[:16]} from parent retention/{PLAIN}"
    with drift_served(sliced.ws) as url, client(url) as web:
        asked = {"policy": sliced.second.digest, "within": "language=de", "against": "base", "cell": cell}
        page = web.get("/drift/rows", params=asked).text
    assert re.search(r"\+0\.000 \[[^]]*\] n=8\. Compared with tiny, number and rows alike", page)
    assert ">all 8<" in page


def test_links_of_the_lineage_and_of_cells_keep_slice_and_baseline(sliced):
    first, second = sliced.first.digest[:16], sliced.second.digest[:16]
    kept = "within=language%3Dde&amp;against=base"
    cell = f"{second} accuracy retention/{PLAIN}"
    with drift_served(sliced.ws) as url, client(url) as web:
        asked = {"policy": second, "within": "language=de", "against": "base"}
        page = web.get("/drift", params=asked).text
        assert f'href="?policy={first}&amp;{kept}"' in page
        assert f'href="?policy={second}&amp;cell={second}+accuracy+retention%2F{PLAIN}&amp;{kept}#rows"' in page
        rows = web.get("/drift/rows", params=asked | {"cell": cell}).text
        assert f'href="?policy={second}&amp;{kept}&amp;cell=" data-close' in rows
        assert f'href="?policy={first}"' in web.get("/drift", params={"policy": second}).text
