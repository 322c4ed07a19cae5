"""Rounds that learn from answers by themselves, on a tiny model."""

import json
import random

import pytest
from pydantic import ValidationError

from preference_data.freeze import FreezeRule
from preference_data.records import Comparison, Completion, Imported, Judgement, Prompt, Thumb, now
from preference_data.store import Entry
from preference_data.versions import load_version
from tests.page_kit import client
from tests.rounds_kit import SETTINGS, WORDS, entries, settings
from tests.test_cli import run
from tests.test_drift_page import drift_served
from tests.tiny_model import build_tiny_model
from workbench.answers import BAD, GOOD, SIDE
from workbench.config import RewardModelSettings
from workbench.config.written import as_toml
from workbench.errors import ConfigError
from workbench.reward_models import train_reward_model
from workbench.rounds.plan import plan_as_json
from workbench.tasks import AGE
from workbench.workspace import Workspace

KTO = ("--set", "objective.loss=kto", "--set", "objective.kto_bad=1.5", "--set", "training.epochs=4")
LEARNS = {"loss": "kto", "kto_bad": 1.5}


def thumbs(count, *, source, seed, up=(True, False)):
    """Answers that begin with `yes please` and are good, and with `no` and are bad, one to a prompt."""
    rng = random.Random(seed)
    made = []
    for i in range(count):
        good = up[i % len(up)]
        prompt = Prompt.of("tell me about " + " ".join(rng.sample(WORDS, 4)))
        answer = Completion(f"{'yes please' if good else 'no'} {rng.choice(WORDS)}", Imported(source))
        comparison = Comparison(prompt, (answer,), source, {"domain": source})
        made.append(Entry(comparison, (Judgement(comparison.key, "ann", Thumb(up=good), now()),)))
    return made


def made(root):
    """A workspace with a version of thumbs alone, one of thumbs and pairs, and one of good thumbs alone."""
    ws = Workspace.init(root / "ws", base=build_tiny_model(root / "model"))
    ws.store.add(thumbs(80, source="thumbs", seed=1))
    ws.store.add(thumbs(30, source="more", seed=2))
    ws.store.add(entries(40, source="pairs", better="yes please", worse="no", seed=3))
    ws.store.add(thumbs(20, source="praise", seed=4, up=(True,)))
    for name, sources in (("thumbs", ("thumbs",)), ("both", ("more", "pairs")), ("praise", ("praise",))):
        ws.freeze(name=name, rule=FreezeRule(sources=sources, min_pairs=0))
    return ws


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """The same after a round on thumbs alone, and what the round said."""
    root = tmp_path_factory.mktemp("kto")
    ws = made(root)
    (root / "round.toml").write_text(as_toml(SETTINGS))
    told = run("round", "-w", ws.root, "-s", root / "round.toml", "--version", "thumbs", *KTO, "--json")
    return ws, told


def trained_on(ws, digest):
    (step,) = (one for one in ws.journal.status(digest).steps if one.name == "answers")
    (folder,) = (each for each in ws.objects.path(step.output).iterdir() if each.is_dir())
    return load_version(folder).pairs("train")


def test_a_round_on_thumbs_alone_tells_good_answers_from_bad_ones_held_out(taught):
    ws, told = taught
    version = ws.version("thumbs")
    assert sum(version.counts.values()) == 0
    (found,) = told["singles"]
    assert found["version"] == version.digest
    assert found["value"]["n"] == version.manifest.singles["test"]
    assert found["value"]["low"] > 0.6
    # Of the base, which is the parent here, every couple is a tie.
    assert found["change"]["value"] == pytest.approx(found["value"]["value"] - 0.5)
    gate = {one["name"]: one for one in told["verdict"]["criteria"]}
    assert gate["gain"]["value"]["value"] == found["change"]["value"]
    assert (told["state"], gate["kl/parent"]["passed"]) == ("promoted", True)


def test_every_training_answer_lies_once_beside_one_to_another_prompt(taught):
    ws, told = taught
    rows, singles = trained_on(ws, told["round"]), ws.version("thumbs").singles("train")
    assert {(r.prompt.key, r.chosen, r.slices[SIDE]) for r in rows} == {
        (s.prompt.key, s.completion, GOOD if s.good else BAD) for s in singles
    }
    prompts = {s.completion: s.prompt.key for s in singles}
    assert all(r.rejected in prompts for r in rows)
    assert sum(r.rejected == r.chosen for r in rows) <= len(rows) / 4  # to other prompts people may say the same


def test_the_wiring_is_proved_at_half_the_weight_of_each_answer(taught):
    ws, told = taught
    (proof,) = (e.progress.facts for e in ws.journal.events(told["round"]) if e.progress.step == "prove")
    # The parent is the reference: r = z = 0, so that a good answer costs 1 / 2 and a bad one 1.5 / 2.
    assert proof["measured_loss"] == pytest.approx(proof["expected_loss"], abs=1e-3)
    assert 0.5 <= proof["expected_loss"] <= 0.75
    last = [e.progress.facts for e in ws.journal.events(told["round"]) if e.progress.step == "optimise"][-1]
    assert last["accuracy"] > 0.6


def test_a_later_round_learns_from_thumbs_and_pairs_and_replays_both(taught):
    ws, told = taught
    chosen = settings(
        version="both", parent=told["name"], method="recommended", objective=LEARNS, training={"epochs": 2}
    )
    plan = ws.plan(chosen)
    assert "penalties" not in plan_as_json(plan)  # the logit that `recommended` holds is of a pair
    outcome = ws.round(plan).run(where="here")
    rows, both = trained_on(ws, outcome.round), ws.version("both")
    new = [r for r in rows if r.slices[AGE] == "0"]
    assert len(new) == both.manifest.singles["train"] + 2 * both.counts["train"]
    assert {r.slices[SIDE] for r in rows if r.slices[AGE] == "1"} == {GOOD, BAD}
    gate = {one.name: one for one in outcome.verdict.criteria}
    assert gate[f"retention/{ws.version('thumbs').digest}"].value.n == ws.version("thumbs").manifest.singles["test"]
    assert gate["gain"].value.n == both.counts["test"]
    measured = {m.suite for m in ws.ledger.suites(outcome.child.digest)}
    assert {f"singles/{both.digest}", f"retention/{both.digest}"} <= measured


def test_a_round_on_pairs_goes_on_from_one_on_thumbs_which_leave_nothing_to_replay(taught):
    ws, told = taught
    outcome = ws.round(ws.plan(settings(version="both", parent=told["name"], method="recommended"))).run(where="here")
    assert outcome.child.parent == told["child"]
    measured = {m.suite for m in ws.ledger.suites(outcome.child.digest)}
    assert {f"singles/{ws.version(name).digest}" for name in ("thumbs", "both")} <= measured


def test_reports_and_pages_say_how_well_they_are_told_apart(taught):
    ws, told = taught
    report = run("drift", told["name"], "-w", ws.root)
    assert "round 1 on single answers of 'thumbs', good over bad: AUC" in " ".join(report.split())
    assert "on 'thumbs', its own version" not in report  # it has no pairs to be right about
    dry = run("round", "-w", ws.root, "--version", "thumbs", *KTO, "--set", "training.max_length=128", "--dry-run")
    assert "answers to train on" in dry
    single = ws.version("thumbs").singles("train")[0]
    with drift_served(ws) as url, client(url) as web:
        page = web.get(f"/rounds/{told['round']}").text
        assert "Good single answers over bad ones, held out</h2>" in page
        assert "Answers of the batch it gets right" in page
        answers = web.get(f"/rounds/{told['round']}/pairs").text
        assert f"{len(ws.version('thumbs').singles('train'))} of its version" in answers
        assert f">{single.completion}</pre>" in answers
        used = web.get(f"/judgements/{single.judgements[0]}").text
        assert f">{single.completion}</pre>" in used
        assert "trained on in" in used
        said = web.get("/drift", params={"policy": told["child"]}).text
        assert "at telling good single answers of &#39;thumbs&#39; from bad ones" in said


def test_a_status_and_a_freeze_count_single_answers(taught):
    ws, _ = taught
    versions = {v["name"]: v for v in run("status", "-w", ws.root, "--json")["versions"]}
    assert [versions[name]["singles"] for name in ("thumbs", "both", "praise")] == [
        sum(ws.version(name).manifest.singles.values()) for name in ("thumbs", "both", "praise")
    ]
    told = run("freeze", "-w", ws.root, "--source", "thumbs", "--dry-run")
    (line,) = (line for line in told.splitlines() if "single answers to train" in line)
    assert line.split()[-1] == str(ws.version("thumbs").manifest.singles["train"])


@pytest.mark.ray
@pytest.mark.slow
def test_on_ray_the_child_is_the_same(taught, tmp_path):
    _, told = taught
    ws = made(tmp_path)
    chosen = settings(version="thumbs", objective=LEARNS, training={"epochs": 4})
    assert ws.round(ws.plan(chosen)).run(where="ray").child.digest == told["child"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"replay": {"share": 0.2, "choice": "margin"}}, r"replay\.choice = 'margin' concerns pairs"),
        ({"replay": {"share": 0.2, "answers": "fresh"}}, r"replay\.answers = 'fresh' concerns pairs"),
        ({"schedule": {"kind": "slice"}}, r"schedule\.kind = 'slice' concerns pairs"),
        ({"penalties": {"kl_new": 0.5}}, r"penalties\.kl_new concerns pairs, but objective\.loss = 'kto'"),
        ({"penalties": {"kl_base": 0.5}}, r"penalties\.kl_base concerns pairs"),
        ({"after": {"keep": (0.0, 0.5)}}, r"after\.keep concerns pairs"),
        ({"training": {"token_metrics": True}}, r"token_metrics concerns pairs"),
        ({"training": {"batch_size": 1}}, r"batch_size = 1: .* a mean over its batch; set 2 or more"),
        (
            {"anchors": ({"policy": "parent", "weight": 0.5}, {"policy": "base", "weight": 0.5})},
            "needs each side apart",
        ),
        ({"objective": {"label_smoothing": 0.1}}, r"label_smoothing = 0\.1 has no effect"),
        ({"objective": {"loss": "sigmoid", "kto_good": 2.0}}, r"kto_good = 2, kto_bad = 1 have no effect"),
    ],
)
def test_what_concerns_pairs_is_refused_before_anything_is_planned(changes, said):
    values = {"objective": {"loss": "kto"}} | changes
    if "objective" in changes:
        values["objective"] = {"loss": "kto"} | changes["objective"]
    with pytest.raises(ValidationError, match=said):
        settings(**values)


@pytest.mark.parametrize(
    ("version", "loss", "said"),
    [
        (
            "thumbs",
            "sigmoid",
            r"single answers to train on and no pairs, which objective\.loss = 'sigmoid' learns from; use",
        ),
        (
            "praise",
            "kto",
            r"has \d+ good and 0 bad answers to \d+ prompts to train on; objective\.loss = 'kto' needs some of each",
        ),
    ],
)
def test_a_version_without_what_a_round_learns_from_is_refused(taught, version, loss, said):
    ws, _ = taught
    plan = ws.plan(settings(version=version, objective={"loss": loss}))
    with pytest.raises(ConfigError, match=said):
        ws.round(plan)


def test_a_reward_model_learns_from_pairs_alone(taught):
    ws, _ = taught
    with pytest.raises(ConfigError, match="no pairs, which reward models learn from"):
        train_reward_model(ws, "one", RewardModelSettings(version="thumbs"), where="here")


def test_weights_of_one_are_no_part_of_a_plan(taught):
    ws, _ = taught
    plans = [ws.plan(settings(version="both", objective=more)) for more in ({}, {"kto_good": 1.0, "kto_bad": 1.0})]
    assert json.dumps(plan_as_json(plans[0])) == json.dumps(plan_as_json(plans[1]))
    assert "kto_good" not in plan_as_json(plans[0])["objective"]
