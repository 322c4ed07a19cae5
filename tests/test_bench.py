"""Benches: verdicts, and files that go on where a stopped run was."""

import json
from importlib import import_module

import pytest

from workbench.bench.figures import Figure, Kept
from workbench.bench.verb import BENCHES

FAST, SLOW = Figure("pairs/s", 12.0, 10, "at least", "of 3"), Figure("seconds", 2.0, 1)


def test_a_verdict_is_by_its_bound_and_what_was_not_measured_is_short():
    assert [f.verdict for f in (FAST, SLOW, Figure("x", None, 1))] == ["ok", "short", "short"]
    assert FAST.line() == "ok     pairs/s  12  >= 10"
    assert SLOW.line() == "short  seconds  2  <= 1"


def kept(path, command="workbench bench x"):
    return Kept(path, command, ("torch",), ("first", "second"))


def test_a_stopped_bench_goes_on_with_the_part_that_is_open(tmp_path):
    file = tmp_path / "x.json"
    kept(file).add("first", [FAST])
    assert json.loads(file.read_text())["open"] == ["second"]
    again = kept(file)
    assert again.figures == {"first": [FAST]}
    again.add("second", [SLOW])
    found = json.loads(file.read_text())
    assert [(f["part"], f["name"], f["value"], f["verdict"]) for f in found["figures"]] == [
        ("first", "pairs/s", 12.0, "ok"),
        ("second", "seconds", 2.0, "short"),
    ]
    assert "open" not in found


def test_figures_of_another_command_or_a_finished_file_are_not_taken_over(tmp_path):
    file = tmp_path / "x.json"
    kept(file).add("first", [FAST])
    assert kept(file, "workbench bench x --quick").figures == {}
    assert kept(None).figures == {}
    done = kept(file)
    done.add("second", [SLOW])
    assert kept(file).figures == {}, "a finished bench is measured anew"


@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_has_parts_and_packages_that_are_there(name):
    assert all(callable(part) for part in import_module(f"workbench.bench.{BENCHES[name].module}").PARTS.values())
    Kept(None, "", BENCHES[name].packages, ())
