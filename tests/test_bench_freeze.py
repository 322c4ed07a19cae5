"""The bench of freezing: which time is that of looking for near-duplicates."""

from types import SimpleNamespace

import pytest

from preference_data import freeze as frozen
from preference_data.splits import Placing
from preference_data.store import Store
from workbench.bench import freeze as bench


@pytest.fixture
def takes(monkeypatch):
    """A clock that stands still but for what is said to take so many seconds."""
    moment = [0.0]
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=lambda: moment[0]))

    def slow(where, name, seconds):
        work = getattr(where, name)

        def lasting(*given, **more):
            moment[0] += seconds
            return work(*given, **more)

        monkeypatch.setattr(where, name, lasting)

    return slow


@pytest.mark.parametrize(
    ("where", "name", "is_near"),
    [
        (bench, "import_file", False),
        (frozen, "_Judged", False),
        (Store, "assignments", True),  # signatures of earlier prompts
        (frozen, "clustered_text", True),
        (Placing, "place", True),
        (Store, "entries_of", False),
        (frozen, "gather", False),
        (frozen, "resolve", False),
        (frozen, "without_twins", True),
        (frozen.Spool, "add", False),
        (Store, "assign", False),
        (frozen, "write_spooled", False),
    ],
)
def test_only_the_search_for_near_duplicates_is_timed_apart(takes, tmp_path, monkeypatch, where, name, is_near):
    monkeypatch.setattr(frozen, "AT_ONCE", 2)  # read and looked through in three parts, not in one
    calls = {"clustered_text": 6, "add": 6, "entries_of": 3, "gather": 3, "resolve": 6, "without_twins": 6}
    takes(where, name, 10.0)
    found = bench.run(6, tmp_path / "run")
    seconds = 10.0 * calls.get(name, 1)
    assert (found.work_s, found.near_s) == ((0.0, seconds) if is_near else (seconds, 0.0))
