"""What settings leave out of precision and threads is the workspace's, and plans keep what it came to."""

import os
import shutil
import tomllib
from contextlib import contextmanager
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from preference_data.records import canonical_json
from tests.rounds_kit import settings, two_versions
from tests.tiny_model import build_tiny_model
from workbench import assembly, looping, reward_models, runner, workspace, worth
from workbench.cli import app
from workbench.config import (
    GenerateSettings,
    LoopSettings,
    NumericsSettings,
    RewardModelSettings,
    RoundSettings,
    settings_from,
    values_of,
)
from workbench.config.written import as_toml
from workbench.rebasing import settings_of
from workbench.rounds.plan import plan_as_json, plan_digest
from workbench.workspace import Workspace

FASTER = 'base_name = "base"\n[numerics]\ndtype = "bfloat16"\nthreads = 3\n'


class SeenError(Exception):
    """Raised in the place of work."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def plain(model, tmp_path_factory):
    """A workspace whose file says nothing of numerics."""
    return two_versions(tmp_path_factory.mktemp("ws") / "plain", model)


@pytest.fixture(scope="module")
def faster(plain, tmp_path_factory):
    """The same, whose file says what is faster."""
    root = shutil.copytree(plain.root, tmp_path_factory.mktemp("ws") / "faster")
    (root / "workbench.toml").write_text(FASTER)
    return Workspace(root)


def used(ws, **named):
    found = ws.plan(settings(numerics=named) if named else settings()).numerics
    return found.dtype, found.threads, found.device


def test_init_writes_what_is_fastest_once(model, tmp_path, monkeypatch):
    asked = []

    def fastest(threads):
        asked.append(threads)
        return NumericsSettings(dtype="bfloat16", threads=threads)

    monkeypatch.setattr(assembly, "fastest", fastest)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5, 6}, raising=False)
    monkeypatch.setattr(assembly, "CPU_SHARE", tmp_path / "none")

    def init(*words):
        return CliRunner().invoke(app, ["init", str(tmp_path / "ws"), *words])

    assert init("--base", str(tmp_path)).exit_code == 1  # no model: nothing is measured
    assert asked == []
    told = init("--base", str(model), "--name", "tiny")
    assert "computes  in bfloat16, threads: 3 ([numerics] in workbench.toml)" in told.output
    written = tomllib.loads((tmp_path / "ws/workbench.toml").read_text())
    assert written == {"base_name": "tiny", "numerics": {"dtype": "bfloat16", "threads": 3}}
    assert "computes  in bfloat16, threads: 3" in init("--base", str(model), "--no-measure").output
    assert asked == [3]


@pytest.mark.parametrize(("share", "cores"), [("max", 3), ("200000", 2), ("50000", 1), ("900000", 3)])
def test_no_more_threads_are_taken_than_a_container_is_given(tmp_path, monkeypatch, share, cores):
    monkeypatch.setattr(assembly, "fastest", lambda threads: threads)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5, 6}, raising=False)
    monkeypatch.setattr(assembly, "CPU_SHARE", tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text(f"{share} 100000\n")
    assert assembly.fastest_here() == cores


def test_nothing_is_measured_without_being_asked(plain):
    assert (plain.root / "workbench.toml").read_text() == 'base_name = "base"\n'


def test_what_a_round_leaves_out_is_the_workspaces_and_what_it_names_is_its_own(plain, faster):
    assert used(plain) == ("float32", 1, "cpu")
    assert used(faster) == ("bfloat16", 3, "cpu")
    assert used(faster, threads=2) == ("bfloat16", 2, "cpu")
    assert used(faster, dtype="float32") == ("float32", 3, "cpu")
    assert used(faster, dtype="float32", threads=1) == ("float32", 1, "cpu")
    assert used(faster, device="cuda") == ("float32", 1, "cuda")  # the processor was measured


def test_a_recorded_round_is_the_same_whatever_the_file_says_later(plain, faster):
    begun = faster.plan(settings())
    recorded = canonical_json(plan_as_json(begun))
    assert (
        plan_as_json(begun)["numerics"] | {"device": "cpu"}
        == NumericsSettings(dtype="bfloat16", threads=3).model_dump()
    )
    assert plan_digest(plain.plan(settings_of(recorded))) == plan_digest(begun) != plan_digest(plain.plan(settings()))
    named = settings(numerics={"dtype": "bfloat16", "threads": 3})
    assert plan_digest(plain.plan(named)) == plan_digest(begun)


def test_a_file_that_plan_writes_leaves_out_what_was_not_named(faster):
    def read(text):
        return settings_from(values_of(text, where="test"), RoundSettings, where="test")

    text = as_toml(settings())
    assert "# dtype is what workbench.toml of the workspace says" in text
    assert faster.plan(read(text)).numerics == NumericsSettings(dtype="bfloat16", threads=3)
    named = as_toml(settings(numerics={"threads": 2}))
    assert "\nthreads = 2\n" in named
    assert faster.plan(read(named)).numerics == NumericsSettings(dtype="bfloat16", threads=2)


def test_answers_reward_models_and_loops_compute_as_the_workspace_says(faster, tmp_path, monkeypatch):
    seen = []

    def see(*given):
        seen.append(given)
        raise SeenError

    monkeypatch.setattr(workspace, "answer", lambda request, *_, **__: see(request.settings))
    monkeypatch.setattr(reward_models, "_plan", see)
    monkeypatch.setattr(looping, "machines_of", see)
    with pytest.raises(SeenError):
        faster.generate(tmp_path / "prompts.txt", where="here")
    with pytest.raises(SeenError):
        faster.generate(tmp_path / "prompts.txt", settings=GenerateSettings(numerics={"threads": 1}), where="here")
    with pytest.raises(SeenError):
        reward_models.train_reward_model(faster, "july", RewardModelSettings(version="polite"), where="here")
    loop = LoopSettings(name="weekly", prompts=tmp_path / "prompts.txt", reward_model={})
    with pytest.raises(SeenError):
        looping.run_loop(faster, loop, looping.Stage())
    both = NumericsSettings(dtype="bfloat16", threads=3)
    assert [each[0].numerics for each in seen[:3]] == [both, NumericsSettings(dtype="bfloat16"), both]
    assert (seen[3][0].round.numerics, seen[3][0].reward_model.numerics) == (both, both)


@pytest.mark.parametrize(
    ("words", "threads"),
    [(("here",), 3), (("ray",), 1), (("here", "--threads", "2"), 2), (("ray", "--threads", "2"), 2)],
)
def test_policies_are_served_as_the_workspace_says(faster, monkeypatch, words, threads):
    seen = []

    @contextmanager
    def speaking(*_, **given):
        seen.append(given["threads"])
        yield None

    def endpoint(_, __, numerics, **___):
        seen.append(numerics)
        raise SeenError

    monkeypatch.setattr(assembly, "speaking", speaking)
    monkeypatch.setattr(runner, "endpoint", endpoint)
    assert isinstance(
        CliRunner().invoke(app, ["serve", "-w", str(faster.root), "--workers", *words]).exception, SeenError
    )
    assert seen == [threads, NumericsSettings(dtype="bfloat16", threads=threads)]


def test_what_is_worth_asking_is_scored_as_the_workspace_says(faster, monkeypatch):
    seen = []

    def score(job, _):
        seen.append(job.numerics)
        raise SeenError

    monkeypatch.setattr(assembly, "IN_PROCESS", replace(assembly.IN_PROCESS, score=score))
    monkeypatch.setattr(worth, "require_lineage", lambda *_: None)
    with pytest.raises(SeenError):
        faster.ask("unsure", by="lead", strategy="margin", where="here")
    assert seen == [NumericsSettings(dtype="bfloat16", threads=3)]
