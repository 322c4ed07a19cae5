"""The bench of explaining on a tiny model: it runs through, goes on, and tells what it left out."""

import pytest

from tests.rounds_kit import persona_files
from tests.tiny_model import build_tiny_model
from workbench.bench import cells, explain
from workbench.bench.stream_versions import DATA, Sizes
from workbench.bench.streams import Task
from workbench.errors import ConfigError
from workbench.views.explained import Cause, Explained


def planted_first(ws, policy, version, *, where):
    """Stands for what is found out, which has tests of its own: what was planted is worst, but for one pair."""
    assert (version, where) == ("one", "here")
    pairs = ws.version(ws.registry.resolve(policy).version[:16]).pairs("train")
    pairs.sort(key=lambda pair: (pair.slices.get("source") != "planted", pair.key))
    pairs.append(pairs.pop(0))
    return Explained(tuple(Cause(1.0 / len(pairs), pair) for pair in pairs), 1, ())


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Two made-up personas, and a tiny model."""
    persona_files(tmp_path)
    monkeypatch.setattr(explain, "TASKS", tuple(Task(n, (f"{n}.jsonl",), "personas") for n in ("one", "two")))
    monkeypatch.setattr(explain, "explain", planted_first)
    monkeypatch.setattr(explain, "QUICK", explain.Scale(Sizes(12, 4, 20), 6, 2))
    monkeypatch.setenv(DATA, str(tmp_path))
    monkeypatch.setenv(cells.WORK, str(tmp_path / "work"))
    monkeypatch.setenv(cells.BASE, str(build_tiny_model(tmp_path / "model")))
    return tmp_path


def test_what_was_planted_is_looked_for_and_left_out(small):
    told = []
    found, regained = explain.measure(told.append, quick=True)
    # 12 pairs of the second task and 6 planted: by chance 6 * 6 / 18 = 2 of the six worst
    assert found.note == "5 of the 6 worst, 2.0 by chance; 18 pairs"
    assert found.value == pytest.approx(2.5)
    assert regained.note.count("0.") + regained.note.count("1.") >= 5, (
        "accuracies before, after, without, twice at random"
    )
    assert [line for line in told if line.startswith("a round")] == [
        "a round with planted pairs", "a round without the worst", "a round without a draw, 1", "a round without a draw, 2",
    ]  # fmt: skip
    assert explain.measure(told.append, quick=True) == [found, regained], "from what is kept"
    (small / "two.jsonl").write_text((small / "one.jsonl").read_text())
    with pytest.raises(ConfigError, match="explain-quick: made with other files"):
        explain.measure(told.append, quick=True)
