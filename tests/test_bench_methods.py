"""The bench of methods: lineages on a tiny model, and what is concluded from them."""

import json

import numpy as np
import pytest

from tests.rounds_kit import persona_files
from tests.tiny_model import build_tiny_model
from workbench.bench import cells as asked_for
from workbench.bench import methods
from workbench.bench.methods_figures import _front, draw
from workbench.bench.methods_report import behaviour_of, compliance, markdown, table
from workbench.bench.methods_verdicts import CONTROL, figures_of
from workbench.bench.stream_versions import DATA, Setting, Sizes, prepare, select_of
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
    kept = {"conditions": bench._conditions, "made_by": bench._made_by(cell), "hits": []}
    file.write_text(json.dumps(kept), encoding="utf-8")
    assert bench._known(cell) == kept
    before = METHODS["replay"]._replace(settings={"replay": {"share": 0.5}})
    monkeypatch.setitem(METHODS, "replay", before)
    with pytest.raises(ConfigError, match="measured when 'replay' or the stream meant something else"):
        bench._known(cell)
    file.write_text(json.dumps({k: v for k, v in kept.items() if k != "made_by"}), encoding="utf-8")
    assert bench._known(cell), "of before it was written down"


def test_streams_are_those_described():
    assert len(STREAMS["long"]) == 12
    assert all(len(stream) >= 4 for stream in STREAMS.values())
    assert [task.update for task in STREAMS["personas-contradictory"]] == [False, False, "risk-averse", False]


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
def found():
    lost = {"plain": 0.2, "equal-replay": 0.1, "recommended": 0.02, "retrain": 0.0}
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
        "s: forgetting less that of replay of equal size, upper bound",
        "s: Last less retraining's, lower bound",
    }


def asked(method, lost):
    """Three lineages of which the last policy loses so many of 500 questions, and no other changes."""
    cells = [lineage(method, seed, 0.02) for seed in range(3)]
    for cell in cells:
        cell["choice"] = [[1.0] * 500, [0.0] * lost + [1.0] * (500 - lost)]
    return cells


def test_a_method_that_is_better_on_both_is_named():
    # 10 of 500 lost by ours, none by the other, which also keeps all of the first task
    ours, other = asked("recommended", 25), [lineage("average", seed, 0.0) for seed in range(3)]
    (figure,) = (each for each in figures_of("s", [*ours, *other]) if "better on Last" in each.name)
    assert (figure.value, figure.verdict, figure.note) == (1, "short", "average")
    (figure,) = (each for each in figures_of("s", [*ours, *asked("average", 25)]) if "better on Last" in each.name)
    assert (figure.value, figure.verdict, figure.note) == (0, "ok", "of 1 others")


def test_the_power_of_the_questions_is_that_of_one_lineage():
    # 8 of 500 lost: 0.016 with error sqrt(0.016 * 0.984 / 499) = 0.00562: Phi(2.848 - 1.960) = Phi(0.889) = 0.813
    (figure,) = (each for each in figures_of("s", asked(CONTROL, 8)) if "chance to see" in each.name)
    assert figure.value == pytest.approx(0.813, abs=0.001)
    (figure,) = (each for each in figures_of("s", asked(CONTROL, 7)) if "chance to see" in each.name)
    assert figure.verdict == "short"


def test_figures_are_drawn_from_what_was_measured(found, tmp_path):
    files = draw("s", found, tmp_path)
    assert [file.name for file in files] == ["s-retention.svg", "s-forgetting.svg", "s-kl.svg", "s-pareto.svg"]
    heat, bars = (file.read_text(encoding="utf-8") for file in files[:2])
    assert "0.98" in heat  # recommended keeps 0.98 of the first task
    assert bars.index(">retrain<") < bars.index(">recommended<") < bars.index(">plain<")
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in draw("s", found, tmp_path)] == before
    for cell in found:
        cell["choice"] = [[], []]
    assert [file.name for file in draw("s", found, tmp_path)][-1] == "s-kl.svg"


def test_the_front_is_what_nothing_beats_on_both():
    assert _front([(0.0, 0.5), (0.1, 0.4), (0.1, 0.7), (0.0, 0.5)]) == [True, False, True, True]


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
    assert "Replaced" not in text
    assert "Replaced by a later task" in markdown("s", [{**cell, "replaced": ["a"]} for cell in found])


def answering(method, seed, kept):
    """Tasks that are guidelines; scores of eight answers to each task's prompts by policy, the base's all 0.

    The first is kept to by all after its round; the second is learned in the second, until when answers are the base's.
    """
    first, second = [[0.0] * 8, [2.0] * 8, kept * 2], [[0.0] * 8, [0.0] * 8, [2.0] * 8]
    elsewhere = [[0.0] * 8] * 3
    return lineage(method, seed, 0.0) | {"compliance": {"a": [first, elsewhere], "b": [elsewhere, second]}}


def test_answers_are_told_from_the_base_s_prompt_by_prompt(found):
    assert behaviour_of(found[:3]) is None, "no guideline has a task's name"
    cells = [answering("plain", seed, [2.0, 0.0, -1.0, 2.0]) for seed in range(3)]
    runs = behaviour_of(cells)
    assert runs.hits[0][0].mean(axis=1).tolist() == [0.5, 1.0, (1 + 0.5 + 0 + 1) / 4]
    assert runs.hits[1][0].mean(axis=1).tolist() == [0.5, 0.5, 1.0]
    (row,) = table(cells)
    assert row["answers: forgetting"].startswith("37.5 [")
    assert row["answers: learned"].startswith("100.0 [")
    assert "an answer keeps to a task's guideline better" in markdown("s", cells)


def test_fresh_answers_are_compared_with_none(found):
    offline = [answering("plain", seed, [2.0, 0.0, -1.0, 2.0]) for seed in range(3)]
    online = [answering("plain+online.objective=dpo+online.beta=1", seed, [2.0] * 4) for seed in range(3)]
    figures = {f.name: f for f in figures_of("s", [*offline, *online])}
    name = online[0]["method"]
    assert figures[f"s: forgotten in answers, {name} less offline, upper bound"].note.startswith("-0.38 [")
    assert f"s: Last in answers, {name} less offline, lower bound" in figures
    for other in (offline[:2], [cell | {"seed": cell["seed"] + 3} for cell in offline]):
        assert not any("answers" in f.name for f in figures_of("s", [*other, *online])), "other seeds cannot be paired"


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
