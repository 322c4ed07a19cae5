"""The bench of methods: lineages on a tiny model, and what is taken from earlier ones."""

import json

import numpy as np
import pytest

from tests.rounds_kit import persona_files
from tests.tiny_model import build_tiny_model
from workbench.bench import cells as asked_for
from workbench.bench import methods
from workbench.bench.methods_verdicts import CONTROL
from workbench.bench.stream_versions import DATA, Setting, Sizes, made_of, prepare, select_of
from workbench.bench.streams import STREAMS, Task, stream
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
    persona_files(tmp_path)
    monkeypatch.setitem(STREAMS, "small", tuple(Task(n, (f"{n}.jsonl",), "personas") for n in ("one", "two")))
    monkeypatch.setenv(DATA, str(tmp_path))
    monkeypatch.setenv(asked_for.WORK, str(tmp_path / "work"))
    monkeypatch.setenv("WORKBENCH_BENCH_STREAMS", "small")
    monkeypatch.setenv("WORKBENCH_BENCH_METHODS", "plain,replay")
    monkeypatch.setenv("WORKBENCH_BENCH_SEEDS", "0")
    monkeypatch.setenv(asked_for.BASE, str(model))
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
    assert [row["scored"] for row in found["rounds"]] == [24, 24]  # two answers of each pair, by the parent
    assert found["versions"] == [bench._ws.version(name).digest for name in ("one", "two")]
    assert found["guidelines"] == ["", ""]
    replayed = bench.run(second)
    assert [row["pairs"] for row in replayed["rounds"]] == [12, 14]  # 12 and a fifth
    assert [row["scored"] for row in replayed["rounds"]] == [24, 28]  # the first round's scores were known already
    assert replayed["hits"][0][:2] == found["hits"][0][:2]  # the first round is the same round
    told = []
    again = methods.Bench("small", told.append, quick=True)
    assert again.run(first) == found
    assert not told
    assert [len(row) for row in found["lost_by_quartile"]] == [4]
    assert "| plain | 1 |" in again.report([found]).read_text(encoding="utf-8")
    (small / "work" / "results" / "quick" / first.file).unlink()
    once_more = again.run(first)
    assert once_more["hits"] == found["hits"]
    assert [row["scored"] for row in once_more["rounds"]] == [24, 24]


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
    monkeypatch.delenv(DATA)
    with pytest.raises(ConfigError, match="WORKBENCH_BENCH_DATA"):
        prepare(Workspace.init(small / "ws", base=model), STREAMS["small"], QUIET)


@pytest.mark.parametrize(("variable", "value"), [("METHODS", "x"), ("SEEDS", "one")])
def test_unknown_choices_are_refused_before_anything_runs(monkeypatch, variable, value):
    monkeypatch.setenv(f"WORKBENCH_BENCH_{variable}", value)
    with pytest.raises(ConfigError, match=f"WORKBENCH_BENCH_{variable}"):
        methods.cells(["personas"])


def test_an_unknown_stream_names_the_known_ones():
    with pytest.raises(ConfigError, match="unknown; known: personas, .* or the path of a manifest"):
        stream("x")


MANIFEST = """
[[task]]
name = "one"
files = ["a/train.json", "b/train.json"]
mapping = "personas"

[[task]]
name = "two"
guideline = "telegram"
update = true
"""


def test_a_manifest_is_a_stream(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MANIFEST)
    two = Task("two", guideline="telegram", update=True)
    assert stream(str(path)) == ("mine", (Task("one", ("a/train.json", "b/train.json"), "personas"), two))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('guideline = "telegram"', "", "'two': expected either files or a guideline"),
        ("telegram", "telegramm", "'telegramm': unknown; known: "),
        ('"two"', '"one"', "two tasks are called 'one'"),
        ("update = true", "part = [2, 2]", "part = .2, 2.: expected a number from 0"),
        ("update = true", "updated = true", "updated"),
        ("[[task]]", "[[task]", "no manifest of a stream"),
    ],
)
def test_a_manifest_that_says_nothing_clear_is_refused(tmp_path, before, after, said):
    path = tmp_path / "mine.toml"
    path.write_text(MANIFEST.replace(before, after))
    with pytest.raises(ConfigError, match=said):
        stream(str(path))


def test_files_of_one_name_are_told_apart(small, model, monkeypatch):
    for name in ("one", "two"):
        (small / name).mkdir()
        (small / f"{name}.jsonl").rename(small / name / "train.jsonl")
    tasks = tuple(Task(name, (f"{name}/train.jsonl",), "personas") for name in ("one", "two"))
    ws = Workspace.init(small / "ws", base=model)
    prepare(ws, tasks, QUIET)
    one, two = ({pair.prompt.key for pair in ws.version(name).pairs("train")} for name in ("one", "two"))
    assert len(one) == len(two) == 12
    assert not one & two


def test_lineages_side_by_side_measure_the_same(small, model, monkeypatch):
    monkeypatch.undo()  # workers see the environment alone
    for name, value in {"DATA": small, "WORK": small / "work", "BASE": model, "METHODS": "plain",
                        "SEEDS": "0,1", "SUITES": "refusal", "WORKERS": "2"}.items():  # fmt: skip
        monkeypatch.setenv(f"WORKBENCH_BENCH_{name}", str(value))
    manifest = small / "mine.toml"
    rows = [f'[[task]]\nname = "{name}"\nfiles = ["{name}.jsonl"]\nmapping = "personas"\n' for name in ("one", "two")]
    manifest.write_text("".join(rows))
    told: list[str] = []
    cells = methods.cells(["mine"])
    beside = methods.Bench(str(manifest), told.append, quick=True).lineages(cells)
    assert any("2 of 2 lineages measured" in line for line in told)
    (small / "work" / "results" / "quick" / cells[0].file).unlink()
    monkeypatch.setenv(asked_for.WORKERS, "1")
    assert methods.Bench(str(manifest), told.append, quick=True).lineages(cells)[0]["hits"] == beside[0]["hits"]


def test_every_method_has_the_same_trials(small, monkeypatch):
    monkeypatch.setenv("WORKBENCH_BENCH_TRIALS", "training.learning_rate=1e-12,training.learning_rate=0.01")
    monkeypatch.setenv("WORKBENCH_BENCH_METHODS", "plain")
    bench = methods.Bench("small", lambda _: None, quick=True)
    found = bench.tried("plain")
    assert list(found) == ["training.learning_rate=1e-12", "training.learning_rate=0.01"]
    assert all(0 <= share <= 1 for share in found.values())
    for name in ("one", "two"):
        judged_on = bench._ws.version(select_of(name)).pairs("test")
        assert {p.key for p in judged_on} == {p.key for p in bench._ws.version(name).pairs("select")}
    monkeypatch.setattr(bench, "_select_accuracy", lambda cell: 1 / 0)
    assert bench.tried("plain") == found  # from its file
    monkeypatch.setattr(methods.Bench, "tried", lambda self, method: {"a": 0.5, "b": 0.75, "c": 0.75})
    assert methods.tuned(lambda _: None, quick=True) == {"plain": "b"}
    monkeypatch.delenv("WORKBENCH_BENCH_TRIALS")
    assert methods.tuned(lambda _: None, quick=True) == {}


def test_the_control_that_is_to_do_harm_is_not_tuned_out_of_it(small, monkeypatch):
    monkeypatch.setenv("WORKBENCH_BENCH_TRIALS", "training.learning_rate=1e-12")
    monkeypatch.setenv("WORKBENCH_BENCH_METHODS", f"plain,{CONTROL}")
    monkeypatch.setattr(methods.Bench, "tried", lambda self, method: {"training.learning_rate=1e-12": 1.0})
    assert methods.tuned(lambda _: None, quick=True) == {"plain": "training.learning_rate=1e-12"}


def test_results_of_what_a_name_meant_before_are_not_taken(small, monkeypatch):
    bench, cell = methods.Bench("small", lambda _: None, quick=True), methods.Cell("small", "replay", 0)
    file = bench._results / cell.file
    kept = {**bench._kept(cell), "hits": []}
    file.write_text(json.dumps(kept), encoding="utf-8")
    assert bench._known(cell) == kept
    before = METHODS["replay"]._replace(settings={"replay": {"share": 0.5}})
    monkeypatch.setitem(METHODS, "replay", before)
    with pytest.raises(ConfigError, match="measured when 'replay', the stream or its pairs were something else"):
        bench._known(cell)


def test_results_of_other_pairs_are_not_taken(small):
    bench, cell = methods.Bench("small", lambda _: None, quick=True), methods.Cell("small", "replay", 0)
    (bench._results / cell.file).write_text(json.dumps({**bench._kept(cell), "hits": []}), encoding="utf-8")
    bench._versions = {**bench._versions, "two": "0" * 64}
    with pytest.raises(ConfigError, match="its pairs were something else"):
        bench._known(cell)


def test_halves_and_trials_of_what_a_name_meant_before_are_not_taken(small, monkeypatch):
    monkeypatch.setenv("WORKBENCH_BENCH_TRIALS", "objective.beta=0.3")
    bench, cell = methods.Bench("small", lambda _: None, quick=True), methods.Cell("small", "replay", 0)
    half, trials = bench._results / cell.file, bench._results / "small-replay-trials.json"
    half.write_text(json.dumps({**bench._kept(cell), "rounds": []}), encoding="utf-8")
    shares = {"objective.beta=0.3": 0.5, "objective.beta=0.9": 0.9}
    trials.write_text(json.dumps({**bench._kept(cell), "trials": shares}), encoding="utf-8")
    assert bench.tried("replay") == {"objective.beta=0.3": 0.5}, "of those asked for now"
    monkeypatch.setitem(METHODS, "replay", METHODS["replay"]._replace(settings={"replay": {"share": 0.5}}))
    with pytest.raises(ConfigError, match="small-replay-0.json: measured when 'replay'"):
        bench.run(cell)
    with pytest.raises(ConfigError, match="small-replay-trials.json: measured when 'replay'"):
        bench.tried("replay")
    half.write_text(json.dumps({"conditions": bench._conditions, "rounds": []}), encoding="utf-8")
    with pytest.raises(ConfigError, match="measured when"):
        bench.run(cell)


def test_a_workspace_of_other_files_tasks_or_base_is_refused(small, monkeypatch):
    root, tasks, file = small / "ws", STREAMS["small"], small / "one.jsonl"
    assert methods.opened(root, tasks).version_entries() == methods.opened(root, tasks).version_entries() == []
    rows = file.read_text()
    file.write_text(rows[: rows.index("\n") + 1])
    with pytest.raises(ConfigError, match="made with other files, or before this was written down; .*BENCH_WORK"):
        methods.opened(root, tasks)
    file.write_text(rows)
    with pytest.raises(ConfigError, match="made with other tasks, or"):
        methods.opened(root, (tasks[0]._replace(part=(0, 2)), tasks[1]))
    monkeypatch.setenv(asked_for.BASE, str(build_tiny_model(small / "other", seed=1)))
    with pytest.raises(ConfigError, match="made with other base, or"):
        methods.opened(root, tasks)
    assert [each.name for each in Workspace(root).registry.policies()] == ["base"], "the other was not added to it"
    (root / "bench-made-of.json").unlink()
    with pytest.raises(ConfigError, match="made with other tasks, files, base, or"):
        methods.opened(root, tasks)


def test_a_mapping_file_is_a_file_of_the_stream(small):
    mapping = small / "own.toml"
    mapping.write_text("a = 1")
    tasks = tuple(task._replace(mapping=str(mapping)) for task in STREAMS["small"])
    before = made_of(tasks, asked_for.base())
    mapping.write_text("a = 2")
    after = made_of(tasks, asked_for.base())
    assert {what for what in before if before[what] != after[what]} == {"files"}


def test_two_manifests_of_one_name_share_nothing(small, monkeypatch):
    row = '[[task]]\nname = "%s"\nfiles = ["%s.jsonl"]\nmapping = "personas"\n'
    manifests = [small / folder / "mine.toml" for folder in ("a", "b")]
    for manifest, files in zip(manifests, (("one", "two"), ("two", "one")), strict=True):
        manifest.parent.mkdir()
        manifest.write_text("".join(row % pair for pair in zip(("first", "second"), files, strict=True)))
    first, second = map(str, manifests)
    methods.Bench(first, lambda _: None, quick=True)
    with pytest.raises(ConfigError, match="mine-quick: made with other tasks, or"):
        methods.Bench(second, lambda _: None, quick=True)
    monkeypatch.setenv("WORKBENCH_BENCH_STREAMS", f"{first},{first},small")
    assert list(methods._parts()) == ["mine", "small"]
    monkeypatch.setenv("WORKBENCH_BENCH_STREAMS", f"{first},{second}")
    with pytest.raises(ConfigError, match="WORKBENCH_BENCH_STREAMS: two streams are called 'mine'"):
        methods._parts()


def test_streams_are_those_described():
    assert len(STREAMS["long"]) == 12
    assert all(len(stream) >= 4 for stream in STREAMS.values())
    assert [task.update for task in STREAMS["personas-contradictory"]] == [False, False, "risk-averse", False]


def test_copies_for_lineages_side_by_side_are_made_apart(tmp_path):
    """Their names end like suffixes, and only there do two seeds differ."""
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "ledger.db").write_text("x")
    taken = tmp_path / "s.s-plain+objective.beta=0.5-1.part"  # another worker is at it
    taken.mkdir()
    copy = methods._copied(tmp_path / "s", "s-plain+objective.beta=0.5-0")
    assert copy.name == "s.s-plain+objective.beta=0.5-0"
    assert (copy / "ledger.db").read_text() == "x"
    assert taken.is_dir()
    (copy / "ledger.db").write_text("further")
    assert (methods._copied(tmp_path / "s", "s-plain+objective.beta=0.5-0") / "ledger.db").read_text() == "further"
