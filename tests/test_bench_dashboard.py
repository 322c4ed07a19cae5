"""The dashboard's bench on a small ledger: it runs through, and what must be zero whatever the machine is zero."""

import pytest

from tests.page_kit import browser
from workbench.bench import dashboard
from workbench.bench.dashboard_world import DashboardWorld, Scale

SMALL = dashboard.Load(Scale(3, 12, 20), cells=4, live_s=12, settled_s=3)


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setattr(dashboard, "QUICK", SMALL)
    monkeypatch.setenv(dashboard.WORK, str(tmp_path))
    return tmp_path


@pytest.fixture
def with_browser():
    """The bench starts its own; where there is none the test is skipped, or fails if it must not be."""
    with browser():
        pass


def values(figures):
    return {figure.name: figure.value for figure in figures}


@pytest.mark.usefixtures("with_browser")
def test_the_page_is_measured_and_asks_for_nothing_it_should_not(small):
    told = []
    found = values(dashboard.measure_page(told.append, quick=True))
    zero = ("torch in the page process", "axe-core serious or critical, light and dark", "hosts outside loopback asked",
            "things the report file asks for")  # fmt: skip
    assert {name: found[name] for name in zero} == dict.fromkeys(zero, 0)
    assert all(found[name] > 0 for name in found if name not in zero)
    assert [line for line in told if "into the ledger" in line] == [
        f"round {n} of 3 into the ledger" for n in (1, 2, 3)
    ]


@pytest.mark.usefixtures("with_browser")
def test_a_round_that_runs_leaves_other_figures_and_open_rows_alone(small):
    found = values(dashboard.measure_live(lambda _: None, quick=True))
    assert (found["remounts of unchanged figures"], found["open rows kept"]) == (0, 1)


def test_a_ledger_is_made_once_for_each_folder(small):
    told = []
    for _ in range(2):
        world = DashboardWorld(small / "made", SMALL.ledger, told.append)
        assert len(world.places.journal.rounds()) == 3
    assert told.count("round 1 of 3 into the ledger") == 1
