"""Whole rounds that are held to earlier ones, on a tiny model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from preference_data.errors import VersionError
from preference_data.versions import load_version
from tests.rounds_kit import settings, two_versions
from tests.tiny_model import build_tiny_model
from workbench.config import METHODS
from workbench.errors import ConfigError
from workbench.models.score_table import read_table
from workbench.policies.registry import PolicyRecord
from workbench.rebasing import check_movable, moved_settings
from workbench.rounds.holding import earlier_versions, held
from workbench.rounds.plan import plan_as_json, plan_digest, replaced
from workbench.tasks import AGE

PLAIN_KEYS = {"number", "parent", "base", "tokenizer", "version", "anchors", "history", "update", "objective", "training",
              "numerics", "evaluation", "gate"}  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Two versions and a first round on one of them."""
    root = tmp_path_factory.mktemp("held")
    ws = two_versions(root / "ws", build_tiny_model(root / "model"))
    ws.round(ws.plan(settings(version="polite", parent="base"))).run(where="here")
    return ws


def planned(ws, **changes):
    return ws.round(ws.plan(settings(version="short", parent="1", **changes)))


def steps(ws, outcome):
    return {step.name.split()[0]: step for step in ws.journal.status(outcome.round).steps}


def trained_on(ws, outcome, step="mix"):
    (folder,) = (each for each in ws.objects.path(steps(ws, outcome)[step].output).iterdir() if each.is_dir())
    return load_version(folder).pairs("train")


def test_a_plain_plan_says_nothing_of_methods(workspace):
    assert plan_as_json(planned(workspace).plan).keys() == PLAIN_KEYS
    one = planned(workspace, replay={"share": 0.0})
    assert plan_digest(one.plan) == planned(workspace).digest
    assert planned(workspace, replay={"share": 0.2}).digest != one.digest


def test_what_an_average_does_not_use_is_not_part_of_a_round(workspace):
    def after(**changes):
        return planned(workspace, after={"keep": [0.2], **changes}).digest

    assert after(density=0.3) == after() == after(merge="linear")
    assert after(merge="slerp", density=0.3) == after(merge="slerp") != after()
    assert after(merge="ties", density=0.3) != after(merge="ties")


@pytest.mark.parametrize("name", METHODS)
def test_what_concerns_old_pairs_does_not_change_the_identity_of_a_first_round(workspace, name):
    def first(**changes):
        return workspace.round(workspace.plan(settings(version="polite", parent="base", **changes)))

    values = METHODS[name].settings
    says_more = {"objective", "after", "moving", "merging"} & values.keys() or name == "kl-new"
    assert (first(**values).digest == first().digest) is not bool(says_more)


def test_a_round_with_replay_trains_on_old_pairs_too(workspace):
    outcome = planned(workspace, replay={"share": 0.25}).run(where="here")
    new, old = workspace.version("short"), workspace.version("polite")
    pairs = trained_on(workspace, outcome)
    count = new.counts["train"]
    by_age = {age: [p for p in pairs if p.slices[AGE] == age] for age in ("0", "1")}
    assert {p.key for p in by_age["0"]} == {p.key for p in new.pairs("train")}
    assert len(by_age["1"]) == round(0.25 * count)
    assert {p.key for p in by_age["1"]} <= {p.key for p in old.pairs("train")}
    again = planned(workspace, replay={"share": 0.25}).run(where="here")
    assert again.child.digest == outcome.child.digest


def test_retraining_starts_from_the_base_on_everything(workspace):
    changes = {"start": "base", "anchors": METHODS["retrain"].settings["anchors"], "replay": {"share": "all"}}
    outcome = planned(workspace, **changes).run(where="here")
    assert outcome.child.parent == workspace.registry.resolve("1").digest
    assert len(trained_on(workspace, outcome)) == sum(workspace.version(n).counts["train"] for n in ("polite", "short"))
    names = [step.name for step in workspace.journal.status(outcome.round).steps if step.name.startswith("score train")]
    assert [name.split()[3] for name in names] == [workspace.registry.resolve("base").digest[:12]]


@pytest.mark.parametrize("kind", ["drift", "slice"])
def test_rules_on_accuracy_read_select_splits_under_the_whole_lineage(workspace, kind):
    outcome = planned(workspace, schedule={"kind": kind, "slice": "domain"}).run(where="here")
    names = [step.name for step in workspace.journal.status(outcome.round).steps]
    select = [name for name in names if name.startswith("score select")]
    assert len(select) == 2  # the earlier version under base and parent
    assert sum(outcome.child.facts["anchors"].values()) == pytest.approx(1)


def test_replayed_pairs_keep_the_reference_they_were_learned_with(workspace):
    plan = planned(workspace, schedule={"kind": "origin"}, replay={"share": 0.5}).plan
    found = held(plan, lambda policy, version: {})
    assert [a.weight for a in found.anchors] == [0, 1]
    assert found.by_slice.weights == {"1": (1, 0)}  # the first round started from the base


def test_fresh_answers_come_from_the_parent_and_are_ranked_by_it(workspace):
    outcome = planned(workspace, replay={"share": 0.5, "answers": "fresh"}).run(where="here")
    known = {(p.prompt.key, p.chosen) for p in workspace.version("polite").pairs()}
    fresh = [p for p in trained_on(workspace, outcome) if p.slices[AGE] == "1"]
    assert fresh
    assert not {(p.prompt.key, p.chosen) for p in fresh} & known
    assert all(p.judgements == () for p in fresh)
    scored = [s for s in workspace.journal.status(outcome.round).steps if s.name.startswith("score train")]
    candidates = {p.key for p in trained_on(workspace, outcome, "candidates")}
    tables = [read_table(workspace.objects.path(s.output)) for s in scored]
    base, parent = (next(t for t, s in zip(tables, scored, strict=True) if t.keys() == candidates and s.name.split()[3] == d)
                    for d in (workspace.registry.resolve(n).digest[:12] for n in ("base", "1")))  # fmt: skip
    for pair in trained_on(workspace, outcome, "candidates"):
        better = pair.chosen if parent[pair.key].margin >= base[pair.key].margin else pair.rejected
        assert any(p.prompt.key == pair.prompt.key and p.chosen == better for p in fresh)


@pytest.mark.parametrize(
    "name",
    [
        "lifealign",
        "copr",
        "cppo",
        "ewc",
        "budget",
        "hold",
        "margin",
        "hma",
        "ema",
        "tr-dpo",
        "tr-dpo-hard",
        "o-lora",
        "on-ties",
        "slerp",
        "dare-ties",
    ],
)
def test_published_methods_run_from_end_to_end(workspace, name):
    outcome = planned(workspace, **METHODS[name].settings).run(where="here")
    assert outcome.child.digest != workspace.registry.resolve("1").digest
    assert Path(workspace.registry.ref(outcome.child).path).is_dir()


def test_a_lineage_is_moved_to_a_new_base_and_measured_there(workspace, tmp_path):
    second = planned(workspace, replay={"share": 0.25}, schedule={"kind": "age"}).run(where="here")
    champion = workspace.registry.resolve("champion").digest
    other = build_tiny_model(tmp_path / "other", seed=1)
    old, new = workspace.rebase(other, policy=second.child.digest, where="here")
    assert (len(old), len(new)) == (3, 3)
    assert not set(old) & set(new)
    assert [p.digest for p in workspace.registry.lineage(new[-1])] == list(new)
    assert workspace.registry.get(new[0]).path == str(other)
    assert [workspace.registry.get(d).version for d in new] == [workspace.registry.get(d).version for d in old]
    assert workspace.registry.resolve("champion").digest == champion
    suites = {m.suite for d in new for m in workspace.ledger.suites(d) if m.suite.startswith("retention")}
    assert len(suites) == 2
    workspace.promote(new[-1], reason="moved", by="test")
    assert workspace.rebase(other, policy=second.child.digest, where="here") == (old, new)
    workspace.rollback(reason="back", by="test")


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_fresh_answers_on_ray_are_those_of_this_process(workspace):
    here = planned(workspace, replay={"share": 0.4, "answers": "fresh", "seed": 3})
    digest = here.run(where="ray").child.digest
    again = two_versions(workspace.root.parent / "again", Path(workspace.registry.resolve("base").path))
    again.round(again.plan(settings(version="polite", parent="base"))).run(where="here")
    assert planned(again, replay={"share": 0.4, "answers": "fresh", "seed": 3}).run(where="here").child.digest == digest


def test_a_lineage_is_not_moved_onto_its_own_base(workspace):
    with pytest.raises(ConfigError, match="sits on base"):
        workspace.rebase(Path(workspace.registry.resolve("base").path), policy="1")


def test_an_adopted_policy_cannot_be_made_again(workspace, tmp_path):
    folder = workspace.registry.ref(workspace.registry.resolve("1")).path
    base = workspace.registry.resolve("base").digest
    parent = workspace.registry.resolve("1").digest
    other = build_tiny_model(tmp_path / "other", seed=2)
    record = PolicyRecord(
        digest="f" * 64, kind="adapter", parent=parent, base=base, tokenizer=workspace.registry.resolve("base").tokenizer,
        path=folder, origin="adopted", name="stranger",
    )  # fmt: skip
    plans = {r.digest: json.loads(r.plan) for r in workspace.journal.rounds()}
    line, new = [*workspace.registry.lineage(parent), record], workspace.registry.add_base(other, "other")
    with pytest.raises(ConfigError, match="was adopted"):
        check_movable(line, new, plans)


def test_anchors_of_another_lineage_cannot_be_moved():
    plan = {"number": 2, "anchors": [{"policy": "c" * 64, "weight": 1.0}], "parent": "p", "version": "v"}
    with pytest.raises(ConfigError, match="no policy of the lineage"):
        moved_settings(plan, {"p": "q"})


def test_what_was_replaced_is_replayed_no_more(workspace):
    plain = planned(workspace, replay={"share": 1.0}).plan
    assert [v.digest for v in earlier_versions(plain).values()] == [workspace.version("polite").digest]
    for update in (True, "polite"):
        plan = planned(workspace, replay={"share": 1.0}, update=update).plan
        assert replaced(plan) == {workspace.version("polite").digest}
        assert not earlier_versions(plan)
        assert not plan.replay.on  # so it is the round without replay
    later = replace(plan, lineage=(*plan.lineage[:-1], plan.lineage[-1]._replace(update=True)), update=False)
    assert replaced(later) == frozenset()  # the first version replaces nothing
    with pytest.raises(ConfigError, match="update: version .* was not trained on in this lineage"):
        planned(workspace, update="short")
    with pytest.raises(VersionError, match="nowhere"):
        planned(workspace, update="nowhere")
