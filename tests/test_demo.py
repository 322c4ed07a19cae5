"""The demo on a tiny model: with guidelines of its own, with files of one's own, and run again."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from preference_data.simulate import GUIDELINES, Guideline
from tests.rounds_kit import WORDS
from tests.tiny_model import build_tiny_model
from workbench import assembly, demo
from workbench.cli import app
from workbench.config import NumericsSettings


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("base"))


def run(*arguments):
    result = CliRunner().invoke(app, ["demo", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def letters(which):
    return Guideline(f"more {which}", 1, f"Prefer more {which}.", lambda _, answer: answer.count(which), margin=1)


@pytest.fixture
def small(monkeypatch):
    """A model that writes noise cannot follow guidelines about words, so these count letters."""
    for which, name in (("a", demo.FIRST), ("e", demo.SECOND)):
        monkeypatch.setitem(GUIDELINES, name, letters(which))
    monkeypatch.setattr(assembly, "fastest_here", NumericsSettings)
    monkeypatch.setattr(demo, "FEWER", 60)
    monkeypatch.setitem(demo.ROUND, "evaluation", demo.ROUND["evaluation"] | {"samples": 5, "suites": ("refusal",)})


def test_two_rounds_on_generated_answers_and_nothing_anew_when_run_again(small, base, tmp_path):
    first = run("--base", base, "-w", tmp_path / "ws", "--fast")
    assert len(first["rounds"]) == 2
    report = first["report"]
    assert [v["name"] for v in report["versions"]] == [demo.FIRST, demo.SECOND]
    assert len(report["policies"]) == 3
    digests = [p["digest"] for p in report["policies"]]
    again = run("--base", base, "-w", tmp_path / "ws", "--fast")
    assert [p["digest"] for p in again["report"]["policies"]] == digests


def test_a_file_of_ones_own_is_a_round(small, base, tmp_path):
    paths = []
    for name, better in (("one", "yes"), ("two", "well")):
        path = tmp_path / f"{name}.jsonl"
        rows = [
            {"prompt": f"{name} {w} {i}", "chosen": f"{better} {w}", "rejected": "no"} for i in range(2) for w in WORDS
        ]
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        paths += ["--data", path]
    found = run("--base", base, "-w", tmp_path / "ws", *paths)
    assert [v["name"] for v in found["report"]["versions"]] == ["one", "two"]
    assert len(found["rounds"]) == 2


def test_the_demos_guidelines_exist_and_the_answers_fit_the_limit():
    assert {demo.FIRST, demo.SECOND} <= set(GUIDELINES)
    longest = max(len(p.text) for p in demo.prompts())
    # at least three characters a token: prompt and both answers within 256 tokens
    assert longest / 3 + 2 * demo.ANSWER["max_new_tokens"] <= 256
    assert Path(demo.__file__).exists()
