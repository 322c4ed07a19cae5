"""The bench of methods: lineages on a tiny model, and what is concluded from them."""

import json

import numpy as np
import pytest

from tests.tiny_model import build_tiny_model
from workbench.bench import methods, streams
from workbench.bench.methods_report import compliance, figures_of, markdown, table
from workbench.bench.streams import STREAMS, Setting, Sizes, Task, prepare
from workbench.config import METHODS, NumericsSettings
from workbench.errors import ConfigError
from workbench.workspace import Workspace

QUIET = Setting(Sizes(12, 8, 20), NumericsSettings(), lambda _: None)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def small(model, tmp_path, monkeypatch):
    """A stream of two files of made-up personas, in a world of its own."""
    words = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in "nprst"]
    for name, liked in (("one", 0), ("two", 1)):
        rows = []
        for i, word in enumerate(words[:160]):
            asked = " ".join(words[(i * 7 + k * 13 + liked * 59) % len(words)] for k in range(6))
            said = (" Yes", " No") if (i % 2) == liked else (" No", " Yes")
            rows.append({"question": f"{word} {asked}?", "statement": asked, "label_confidence": 1.0,
                         "answer_matching_behavior": said[0], "answer_not_matching_behavior": said[1]})  # fmt: skip
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setitem(STREAMS, "small", tuple(Task(n, f"{n}.jsonl", "personas") for n in ("one", "two")))
    monkeypatch.setenv(streams.DATA, str(tmp_path))
    monkeypatch.setenv(methods.WORK, str(tmp_path / "work"))
    monkeypatch.setenv("WORKBENCH_BENCH_METHODS", "plain,replay")
    monkeypatch.setenv("WORKBENCH_BENCH_SEEDS", "0")
    monkeypatch.setattr(methods, "base_folder", lambda: model)
    monkeypatch.setenv("WORKBENCH_BENCH_SUITES", "refusal")
    monkeypatch.setattr(methods, "EVALUATION", {"samples": 4, "max_new_tokens": 4})
    return tmp_path


def test_a_lineage_is_measured_on_every_task_and_kept(small):
    bench = methods.Bench("small", lambda _: None, quick=True)
    (first, second) = methods.cells(["small"])
    assert (first.method, second.method) == ("plain", "replay")
    found = bench.run(first)
    assert found["tasks"] == ["one", "two"]
    assert np.array(found["hits"]).shape == (2, 3, 20)  # tasks, policies, prompts
    assert [len(row) for row in found["kl_base"]] == [3, 3]
    assert [row["pairs"] for row in found["rounds"]] == [12, 12]
    replayed = bench.run(second)
    assert [row["pairs"] for row in replayed["rounds"]] == [12, 14]  # 12 and a fifth
    assert replayed["hits"][0][:2] == found["hits"][0][:2]  # the first round is the same round
    told = []
    again = methods.Bench("small", told.append, quick=True)
    assert again.run(first) == found
    assert not told
    assert [len(row) for row in found["lost_by_quartile"]] == [4]
    assert "| plain | 1 |" in again.report([found]).read_text(encoding="utf-8")
    (small / "work" / "results" / "quick" / first.file).unlink()
    assert again.run(first)["hits"] == found["hits"]


def test_versions_of_a_stream_share_no_prompt_between_splits(small, model):
    ws = Workspace.init(small / "ws", base=model)
    assert prepare(ws, STREAMS["small"], QUIET) == ["one", "two"]
    for name in ("one", "two"):
        version = ws.version(name)
        assert (version.counts["train"], version.counts["test"]) == (12, 20)
        prompts = [{p.prompt.key for p in version.pairs(split)} for split in ("train", "select", "test")]
        assert not prompts[0] & prompts[2]
        assert not prompts[1] & prompts[2]
    assert prepare(ws, STREAMS["small"], QUIET) == ["one", "two"]


def test_a_missing_file_names_the_variable(small, model, monkeypatch):
    monkeypatch.delenv(streams.DATA)
    with pytest.raises(ConfigError, match="WORKBENCH_BENCH_DATA"):
        prepare(Workspace.init(small / "ws", base=model), STREAMS["small"], QUIET)


@pytest.mark.parametrize(("variable", "value"), [("STREAMS", "x"), ("METHODS", "x"), ("SEEDS", "one")])
def test_unknown_choices_are_refused_before_anything_runs(monkeypatch, variable, value):
    monkeypatch.setenv(f"WORKBENCH_BENCH_{variable}", value)
    with pytest.raises(ConfigError, match=f"WORKBENCH_BENCH_{variable}"):
        methods.cells(["personas"])


def test_streams_are_those_described():
    assert len(STREAMS["long"]) == 12
    assert all(len(stream) >= 4 for stream in STREAMS.values())
    assert [task.update for task in STREAMS["personas-contradictory"]] == [False, False, True, False]


def lineage(method, seed, lost):
    """A stream of two tasks: all of both is learned, then a share of the first is lost."""
    rng = np.random.default_rng([seed, len(method)])
    first, second = np.zeros((3, 200)), np.zeros((3, 200))
    first[1:] = second[2:] = 1
    first[2, rng.permutation(200)[: round(200 * lost)]] = 0
    numbers = [[None, 0.1, 0.2]] * 2
    return {
        "stream": "s", "method": method, "seed": seed, "tasks": ["a", "b"], "hits": [first.tolist(), second.tolist()],
        "chance": [[0.5] * 3] * 2, "kl_base": numbers, "kl_parent": numbers, "tokens": [[9.0] * 3] * 2,
        "distinct_2": [[0.5] * 3] * 2, "choice": [[1.0] * 500] * 2, "text_bits": [100.0, 101.0],
        "compliance": {"g": [[[1.0, 2.0]] * 3] * 2},
        "rounds": [{"seconds": 60.0, "scored": 10, "pairs": 5, "disk_bytes": 1, "peak_bytes": 1}] * 2,
    }  # fmt: skip


@pytest.fixture
def found(monkeypatch):
    monkeypatch.setitem(METHODS, "recommended", METHODS["plain"])
    lost = {"plain": 0.2, "replay": 0.1, "recommended": 0.02, "retrain": 0.0}
    return [lineage(method, seed, share) for method, share in lost.items() for seed in range(3)]


def test_figures_say_what_must_hold(found):
    figures = {figure.name: figure for figure in figures_of("s", found)}
    assert figures["s: forgetting of sequential DPO"].value == pytest.approx(0.2)
    assert figures["s: share of sequential DPO's forgetting"].value == pytest.approx(0.1)
    assert all(figure.verdict == "ok" for figure in figures.values())
    worse = [lineage("recommended", cell["seed"], 0.15) if cell["method"] == "recommended" else cell for cell in found]
    short = {figure.name for figure in figures_of("s", worse) if figure.verdict == "short"}
    assert short == {
        "s: share of sequential DPO's forgetting",
        "s: forgetting less half of sequential DPO's, upper bound",
        "s: forgetting less plain replay's, upper bound",
        "s: Last less retraining's, lower bound",
    }


def test_the_table_has_every_method_with_intervals_and_costs(found):
    rows = {row["method"]: row for row in table(found)}
    assert rows["plain"]["forgetting"].startswith("20.0 [")
    assert rows["plain"]["text bits"] == "+1.0 %"
    assert (rows["plain"]["pairs"], rows["plain"]["minutes a round"]) == ("10", "1.0")
    text = markdown("s", found)
    assert "BWT over T-1" in text
    assert text.count("\n|") == 2 + len(rows)
    assert "- g: 1.5, 1.5, 1.5" in text
    assert compliance(found)["plain"] == {"g": [1.5, 1.5, 1.5]}
