"""Whole rounds on a tiny model: killed anywhere, on Ray, in process; the child is the same."""

import multiprocessing
import os
import random
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from preference_data.records import canonical_json
from tests.rounds_kit import settings, two_versions
from tests.tiny_model import build_tiny_model
from workbench import assembly
from workbench.acting import _planned
from workbench.config import AnchorSettings
from workbench.errors import ArtifactError, ConfigError, JournalError, PolicyError, StopRequested, WiringError
from workbench.failpoints import VARIABLE
from workbench.rounds.plan import plan_as_json, plan_digest
from workbench.rounds.run import run_round
from workbench.workspace import Workspace


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def prepared(model, tmp_path_factory):
    """The folder of a workspace with two versions, for copies of it."""
    return two_versions(tmp_path_factory.mktemp("prepared") / "ws", model).root


@pytest.fixture
def workspace(prepared, tmp_path):
    return Workspace(shutil.copytree(prepared, tmp_path / "ws"))


def first_round(ws, **changes):
    """The round on the base; named as parent, because the champion moves when it ends."""
    return ws.round(ws.plan(settings(version="polite", parent="base", **changes)))


@pytest.fixture(scope="module")
def ended(model, tmp_path_factory):
    """Another workspace of the same preferences and the first round in it, run in process without interruption."""
    ws = two_versions(tmp_path_factory.mktemp("ended") / "ws", model)
    return ws, first_round(ws).run(where="here")


@pytest.fixture(scope="module")
def expected(ended):
    """Digest of the child of the first round."""
    return ended[1].child.digest


@pytest.fixture
def continued(ended, tmp_path):
    """A copy of the workspace in which the first round has ended."""
    return Workspace(shutil.copytree(ended[0].root, tmp_path / "ws"))


def test_two_rounds_leave_lineage_champion_and_measurements(continued, ended):
    workspace, first = continued, ended[1]
    assert (first.state, workspace.registry.resolve("champion").digest) == ("promoted", first.child.digest)
    anchors = (AnchorSettings(policy="parent", weight=0.5), AnchorSettings(policy="base", weight=0.5))
    second = workspace.round(workspace.plan(settings(version="short", anchors=anchors))).run(where="here")
    assert second.state == "promoted"
    assert [p.digest for p in workspace.registry.lineage(second.child.digest)] == [
        workspace.registry.resolve("base").digest,
        first.child.digest,
        second.child.digest,
    ]
    suites = {m.suite.split("/")[0] for m in workspace.ledger.suites(second.child.digest)}
    assert suites == {"retention", "samples", "refusal"}
    measured = {m.suite for m in workspace.ledger.suites(second.child.digest) if m.suite.startswith("retention")}
    assert measured == {f"retention/{e.digest}" for e in workspace.version_entries()}
    names = [c.name for c in second.verdict.criteria]
    assert f"retention/{workspace.version('polite').digest}" in names


def test_a_round_run_again_is_the_same_round(workspace, expected):
    assert first_round(workspace).run(where="here").child.digest == expected
    assert first_round(Workspace(workspace.root)).run(where="here").child.digest == expected
    assert len(workspace.journal.rounds()) == 1


def test_the_gate_judges_what_ships(workspace, expected):
    planned = first_round(workspace, judged="merged")
    outcome = planned.run(where="here")
    assert (outcome.child.digest, outcome.state) == (expected, "promoted")
    (merged,) = {step.output for step in workspace.journal.status(outcome.round).steps if step.name == "merge"}
    own, shipped = (
        {m.suite: len(workspace.ledger.items(p, m.suite, m.metric, m.numerics)) for m in workspace.ledger.suites(p)}
        for p in (expected, merged)
    )
    assert own == shipped
    # Folded weights round otherwise, and say nearly the same.
    suite = f"retention/{workspace.version('polite').digest}"
    condition = workspace.ledger.suites(expected)[0].numerics
    for a, b in zip(*(workspace.ledger.items(p, suite, "margin", condition) for p in (expected, merged)), strict=True):
        assert a.value == pytest.approx(b.value, abs=1e-3)


@pytest.mark.parametrize("rounded", ["bf16", "q8_0", "q4_0"])
def test_the_gate_judges_what_a_server_holds(workspace, expected, rounded):
    from safetensors.torch import load_file

    outcome = first_round(workspace, judged=rounded, gate={"min_gain": -1}).run(where="here", promote=False)
    assert outcome.child.digest == expected
    (step,) = [step for step in workspace.journal.status(outcome.round).steps if step.name == "merge"]
    shipped = load_file(workspace.objects.path(step.output) / "model.safetensors")
    matrices = [one.float() for one in shipped.values() if one.ndim == 2 and one.shape[1] % 32 == 0]
    assert matrices
    for matrix in matrices:
        if rounded == "bf16":
            assert torch.equal(matrix, matrix.bfloat16().float())
        else:
            # A block of 32 holds a multiple of its scale each: 255 or 16 different values at most.
            assert all(len(block.unique()) <= {"q8_0": 255, "q4_0": 16}[rounded] for block in matrix.reshape(-1, 32))
    measured = {m.suite for m in workspace.ledger.suites(step.output)}
    assert f"retention/{workspace.version('polite').digest}" in measured
    assert outcome.verdict.passed


def test_a_block_of_eight_bits_by_hand():
    # The largest is 127 steps: 12.7 makes a step of 0.1, in half precision 0.0999755859375; 0.26 is nearest to three of them.
    row = torch.zeros(1, 32)
    row[0, 0], row[0, 1] = 12.7, 0.26
    from workbench.models.export import in_blocks

    found = in_blocks(row, "q8_0")
    assert found[0, :3].tolist() == pytest.approx([127 * 0.0999755859375, 3 * 0.0999755859375, 0], rel=1e-6)
    assert torch.equal(in_blocks(found, "q8_0"), found)
    assert torch.equal(in_blocks(row[0], "q8_0"), row[0])
    assert torch.equal(in_blocks(row[:, :31], "q8_0"), row[:, :31])


def test_an_artifact_that_was_damaged_on_the_way_is_refused(workspace):
    from safetensors.torch import load_file, save_file

    def damaging(job, report):
        assembly.merge(job, report)
        for file in Path(job.output).glob("*.safetensors"):
            save_file({name: 3 * one for name, one in load_file(file).items()}, file, metadata={"format": "pt"})

    gate = {"max_kl_base": 0.1, "max_kl_parent": 0.1}
    assert first_round(workspace, gate=gate).run(where="here", promote=False).verdict.passed
    planned = first_round(workspace, gate=gate, judged="merged")
    outcome = run_round(planned.plan, replace(assembly.IN_PROCESS, merge=damaging), workspace.services())
    assert (outcome.state, [c.name for c in outcome.verdict.failures]) == ("rejected", ["kl/parent", "kl/base"])


def test_anchors_that_are_one_policy_count_together(workspace):
    anchors = (AnchorSettings(policy="parent", weight=0.5), AnchorSettings(policy="base", weight=0.5))
    plan = workspace.plan(settings(anchors=anchors))
    assert [a.weight for a in plan.anchors] == [1.0]


def run_in_child(root: str, fail_at: str) -> None:
    """The first round in a process of its own, to be killed at a failpoint."""
    os.environ[VARIABLE] = fail_at
    first_round(Workspace(Path(root))).run(where="here")


def killed(root: Path, fail_at: str) -> bool:
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=run_in_child, args=(str(root), fail_at))
    process.start()
    process.join(120)
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_killed_at_every_step_and_at_random_optimizer_steps(workspace, expected):
    """One workspace, killed again and again: before every commit of a step and at three optimizer steps."""
    optimizer_steps = sorted(random.Random(os.environ.get("WORKBENCH_SEED", "0")).sample(range(1, 5), 3))
    points = [f"training.step:{step}" for step in optimizer_steps]
    points += ["training.before_seal", "objects.seal.before_rename"]
    # A killed step was worked on but not committed; the next attempt does it and is killed one step later.
    points += ["journal.complete.before_commit:1", "journal.complete.after_commit:1", "journal.step.after_work:1",
               "journal.complete.after_commit:2", "registry.add.before_commit", "ledger.record.after_commit",
               "registry.promote.before_commit", "journal.finish.before_commit"]  # fmt: skip
    hit = [point for point in points if killed(workspace.root, point)]
    assert hit == points, "a failpoint was not reached"
    outcome = first_round(workspace).run(where="here")
    assert (outcome.child.digest, outcome.state) == (expected, "promoted")
    steps = workspace.journal.status(outcome.round).steps
    assert all(step.state == "done" for step in steps)
    promotions = [m for m in workspace.registry.history() if m.new == expected]
    assert len(promotions) == 1


def killed_once(job, report):
    """Training whose process dies at the third optimizer step, the first time."""
    mark = Path(job.scratch) / "killed"

    def die(progress):
        if progress.done == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return report(progress)

    assembly.IN_PROCESS.optimise(job, die)


@pytest.mark.ray
@pytest.mark.slow
def test_on_ray_the_child_is_the_same_and_a_killed_worker_is_replaced(workspace, expected, monkeypatch):
    steps = []

    def watch(progress):
        if progress.step == "optimise":
            steps.append(progress.done)

    monkeypatch.setattr(assembly, "IN_PROCESS", replace(assembly.IN_PROCESS, optimise=killed_once))
    outcome = first_round(workspace).run(where="ray", watch=watch)
    assert list(workspace.root.rglob("killed")), "the training worker was not killed"
    assert steps == [1, 2, 3, 4, 5], "killed in its third step, it goes on from the checkpoint after the second"
    assert outcome.child.digest == expected
    done = [e for e in workspace.journal.status(outcome.round).steps if e.name == "optimise"]
    assert done[0].attempts == 1, "Ray retries the task; the journal's step is not begun again"


def test_asked_to_stop_it_stops_and_goes_on(workspace, expected):
    planned = first_round(workspace)

    def stop(progress):
        if progress.step == "optimise" and progress.done == 1:
            workspace.journal.request_stop(planned.digest, by="test")

    with pytest.raises(StopRequested):
        planned.run(where="here", watch=stop)
    assert workspace.journal.status(planned.digest).round.state == "stopped"
    assert first_round(workspace).run(where="here").child.digest == expected


def test_a_rejected_child_leaves_the_champion(workspace):
    base = workspace.registry.resolve("champion").digest
    outcome = first_round(workspace, gate={"min_gain": 0.99}).run(where="here")
    assert outcome.state == "rejected"
    assert [c.name for c in outcome.verdict.failures] == ["gain"]
    assert workspace.registry.resolve("champion").digest == base


def test_a_champion_that_moved_meanwhile_is_not_replaced(continued, expected):
    planned = first_round(continued, training={"seed": 5})
    outcome = planned.run(where="here")
    assert outcome.state == "kept"
    assert continued.registry.resolve("champion").digest == expected


def test_a_damaged_adapter_is_refused_before_anything_is_trained(continued, expected):
    weights = Path(continued.registry.get(expected).path) / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises((PolicyError, ArtifactError), match="adapter_model.safetensors"):
        continued.round(continued.plan(settings(version="short"))).run(where="here")


def test_a_second_round_in_the_same_workspace_waits_its_turn(workspace):
    planned = first_round(workspace)
    with (
        workspace.held("running round 1"),
        pytest.raises(JournalError, match="is running round 1 in this workspace; wait"),
    ):
        planned.run(where="here")
    assert workspace.journal.rounds() == ()
    with workspace.held("freezing a version"), pytest.raises(JournalError, match="is freezing a version"):
        workspace.freeze(name="again")
    with workspace.held("running round 1"), pytest.raises(JournalError, match="is running round 1"):
        workspace.gc(scores=True)  # it may be reading them


def test_a_round_that_breaks_in_an_unknown_way_has_failed_and_can_be_run_again(workspace, expected, monkeypatch):
    planned = first_round(workspace)

    def breaks(*_):
        raise KeyError("x")

    with monkeypatch.context() as broken:
        broken.setattr(assembly, "IN_PROCESS", replace(assembly.IN_PROCESS, optimise=breaks))
        with pytest.raises(KeyError):
            planned.run(where="here")
    record = workspace.journal.rounds()[-1]
    assert (record.state, record.message) == ("failed", "KeyError: 'x'")
    assert planned.run(where="here").child.digest == expected


def test_full_weights_take_no_adapter(workspace):
    full = {"method": "full", "learning_rate": 1e-3}
    child = (
        workspace.round(workspace.plan(settings(version="polite", parent="base", training=full)))
        .run(where="here")
        .child
    )
    with pytest.raises(ConfigError, match="has full weights of its own; use method = 'full'"):
        workspace.plan(settings(version="short", parent=child.digest))


def test_going_on_with_a_round_that_cannot_be_planned_again_is_refused(workspace, tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_text('{"question": "a?", "options": ["b", "c"], "answer": 0}\n', encoding="utf-8")
    plan = workspace.plan(settings(version="polite", parent="base", evaluation={"suites": [f"file:{file}"]}))
    digest = plan_digest(plan)
    workspace.journal.begin(digest, 1, canonical_json(plan_as_json(plan)))
    with pytest.raises(ConfigError, match="cannot be planned again from what is recorded"):
        _planned(workspace, {"round": digest})


def test_an_export_that_fails_leaves_nothing_in_its_place(workspace, tmp_path, monkeypatch):
    def half(policy, folder, **_):
        (folder / "model.safetensors").write_bytes(b"half")
        raise RuntimeError("I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(assembly, "export_policy", half)
        with pytest.raises(RuntimeError, match="I/O error"):
            workspace.export_policy("base", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    workspace.export_policy("base", tmp_path / "out")
    assert (tmp_path / "out" / "config.json").is_file()
    assert not (tmp_path / "out.part").exists()


def test_an_anchor_that_does_not_exist_is_named(workspace):
    with pytest.raises(PolicyError, match="gone"):
        workspace.plan(settings(anchors=(AnchorSettings(policy="gone", weight=1.0),)))


def test_an_anchor_on_another_base_is_refused(workspace, tmp_path):
    workspace.registry.add_base(build_tiny_model(tmp_path / "other", seed=7), "other")
    plan = workspace.plan(settings(anchors=(AnchorSettings(policy="other", weight=1.0),)))
    with pytest.raises(WiringError, match="anchor 1 .* sits on base"):
        workspace.round(plan).run(where="here")
