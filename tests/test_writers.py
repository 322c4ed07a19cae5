"""Who writes the answers a round learns from: ahead of the trainer, on workers, with workers and trainer killed."""

import json
import math
import multiprocessing
import os
import signal
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from preference_data.freeze import FreezeRule
from preference_data.records import Prompt
from tests.rounds_kit import entries, settings
from tests.tiny_model import build_tiny_model
from workbench import assembly
from workbench.cluster import writers as cluster_writers
from workbench.config import OnlineSettings
from workbench.errors import StopRequested, WorkerError
from workbench.maths import importance
from workbench.models.forward import collate, completion_logps
from workbench.models.load import load_full, load_tokenizer
from workbench.models.sampling import Answer, Sampling, draw, sample
from workbench.models.tokens import Encoded, pad_id
from workbench.training.online.writers import Ahead
from workbench.workspace import Workspace

ONLINE = {"objective": "grpo", "rewards": [{"by": "rule:telegram"}], "steps": 6, "prompts": 4, "samples": 4, "beta": 0.01,
          "max_new_tokens": 8}  # fmt: skip
STEEP = {"training": {"method": "full", "learning_rate": 1e-2, "checkpoint_every": 2, "warmup_share": 0.0}}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("model"))


def workspace(root, model):
    ws = Workspace.init(root, base=model)
    ws.store.add(entries(60, source="polite", better="yes", worse="nay"))
    ws.freeze(name="polite", rule=FreezeRule(sources=("polite",)))
    return ws


def online(**changes):
    return settings(version="polite", parent="base", online=ONLINE | changes, **STEEP)


def run(ws, where="here", watch=lambda _: None, **changes):
    seen = []

    def both(progress):
        if progress.step == "optimise" and "answer_tokens" in progress.facts:
            seen.append(progress.facts)
        watch(progress)

    outcome = ws.round(ws.plan(online(**changes))).run(where=where, watch=both)
    return outcome, seen


@pytest.fixture(scope="module")
def here(model, tmp_path_factory):
    """Rounds in this process without interruption, each run once: `here(staleness=1)`."""

    @cache
    def once(**changes):
        return run(workspace(tmp_path_factory.mktemp("here"), model), **changes)

    return once


def test_chances_of_what_was_drawn_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)]])  # a quarter and three quarters
    for chance, token, share in ((0.1, 0, 0.25), (0.9, 1, 0.75)):
        found, logp = draw(logits, torch.tensor([chance]), temperature=1.0, top_p=1.0)
        assert (found.item(), logp.item()) == (token, pytest.approx(math.log(share), abs=1e-6))
    # At temperature 1/2 the odds are nine to one; a nucleus of the likeliest alone leaves no choice.
    assert draw(logits, torch.tensor([0.5]), temperature=0.5, top_p=1.0)[1].item() == pytest.approx(
        math.log(0.9), abs=1e-6
    )
    assert draw(logits, torch.tensor([0.5]), temperature=1.0, top_p=0.5)[1].item() == pytest.approx(0.0, abs=1e-6)
    assert draw(logits, torch.tensor([0.5]), temperature=0.0, top_p=1.0)[0].item() == 1


def test_an_answers_log_prob_is_the_one_a_forward_pass_gives(model):
    policy, tokenizer = load_full(str(model)), load_tokenizer(str(model))
    prompts = [Prompt.of("tea moon"), Prompt.of("river stone paper"), Prompt.of("tea moon")]
    found = sample(policy, tokenizer, prompts, Sampling(12, 1.0, 1.0, 8, 3))
    with torch.no_grad():
        logps = completion_logps(policy, collate([a.encoded for a in found], pad_id=pad_id(tokenizer), layout="plain"))
    assert [a.logp for a in found] == pytest.approx(logps.tolist(), abs=1e-4)


def test_importance_is_a_ratio_and_is_cut():
    away = torch.tensor([0.0, math.log(1.5), math.log(5.0), -math.log(4.0)])
    assert importance(away).tolist() == pytest.approx([1.0, 1.5, 2.0, 0.25])


def answered(step, by):
    return [Answer(step, by, Encoded((1,), (2,)), finished=True, logp=-0.5)]


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_a_step_gets_what_was_written_so_many_steps_before(staleness, tmp_path):
    learned, model = [], torch.nn.Linear(1, 1, bias=False)

    def write(weights, prompts, sampling):
        by = f"policy {int(weights()['weight'].item())}"
        return lambda: answered(sampling, by)

    def make():
        return Ahead(model, write, lambda step: ([], step) if step < 8 else None, staleness=staleness)

    ahead = make()
    for step in range(8):
        with torch.no_grad():
            model.weight.fill_(step)
        if step == 5:  # killed and gone on with: what was written ahead comes from the checkpoint
            ahead.save(tmp_path)
            ahead = make()
            ahead.load(tmp_path)
        (answer,) = ahead.answers(step)
        assert (answer.index, answer.logp, answer.encoded) == (step, -0.5, Encoded((1,), (2,)))
        learned.append(answer.text)
    assert learned == [f"policy {max(0, step - staleness)}" for step in range(8)]
    assert len(json.loads((tmp_path / Ahead.FILE).read_text())) == staleness


def test_written_and_learned_from_in_one_process_they_agree(here):
    _, in_step = here()
    assert all(facts["apart"] < 1e-4 for facts in in_step)
    _, stale = here(staleness=2)
    assert stale[0]["apart"] < 1e-4  # nothing has changed yet
    assert max(facts["apart"] for facts in stale[1:]) > 1e-3


def test_stopped_while_answers_are_ahead_it_is_the_same_child(model, here, tmp_path):
    whole, _ = here(staleness=2)
    other = workspace(tmp_path, model)

    def stop(progress):
        if progress.step == "optimise" and progress.done == 3 and "answer_tokens" in progress.facts:
            other.journal.request_stop(other.journal.rounds()[-1].digest, by="test")

    with pytest.raises(StopRequested):
        run(other, watch=stop, staleness=2)
    again, _ = run(other, staleness=2)
    assert again.child.digest == whole.child.digest


def test_settings_that_cannot_be_weighed_are_refused():
    with pytest.raises(ValueError, match="use temperature = 1, or staleness = 0"):
        OnlineSettings.model_validate({**ONLINE, "staleness": 1, "temperature": 0.7})


def test_prompts_are_shared_with_copies_together():
    prompts = [Prompt.of(text) for text in ("a", "a", "b" * 40, "c", "c", "b" * 40, "d")]
    for count in (1, 2, 3, 9):
        shares = cluster_writers.shared(prompts, count)
        assert sorted(i for share in shares for i in share) == [*range(7)]
        held = [{prompts[i].key for i in share} for share in shares]
        assert sum(map(len, held)) == 4  # no prompt lies in two shares
        parts = [[Answer(0, str(i), Encoded((1,), (2,)), finished=True) for i in share] for share in shares if share]
        together = cluster_writers.in_place(parts, [share for share in shares if share])
        assert [(a.index, a.text) for a in together] == [(i, str(i)) for i in range(7)]


@pytest.mark.parametrize(("workers", "staleness", "needs"), [(3, 0, 3), (2, 1, 3), (2, 0, None), (1, 1, None)])
def test_more_workers_than_cpus_are_refused(monkeypatch, workers, staleness, needs):
    made = []
    monkeypatch.setattr(cluster_writers.ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(
        cluster_writers,
        "Writers",
        lambda *given: made.append(given) or SimpleNamespace(end=lambda: made.append("ended")),
    )
    job = SimpleNamespace(online=OnlineSettings.model_validate({**ONLINE, "workers": workers, "staleness": staleness}),
                          numerics=SimpleNamespace(threads=1, device="cpu"))  # fmt: skip
    if needs:
        with (
            pytest.raises(WorkerError, match=f"needs {needs} CPUs, the cluster has 2"),
            cluster_writers.writers(None, job),
        ):
            pass
        assert not made
    else:
        with cluster_writers.writers(None, job) as write:
            assert write
        assert made[-1] == "ended"


def test_workers_on_gpus_need_one_each_beside_the_trainers(monkeypatch):
    monkeypatch.setattr(cluster_writers.ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": 1.0})
    job = SimpleNamespace(online=OnlineSettings.model_validate({**ONLINE, "workers": 1}),
                          numerics=SimpleNamespace(threads=1, device="cuda"))  # fmt: skip
    with (
        pytest.raises(WorkerError, match="needs 2 of them, the trainer's included; the cluster has 1"),
        cluster_writers.writers(None, job),
    ):
        pass


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_two_workers_write_what_the_trainer_would(model, here, tmp_path):
    _, alone = here()
    _, shared = run(workspace(tmp_path, model), where="ray", workers=2)
    for name in ("reward", "answer_tokens", "distinct_answers"):
        assert [f[name] for f in shared] == pytest.approx([f[name] for f in alone], abs=1e-3)


def mark(job, name):
    """Whether this is the first time; a file says so, because processes come and go."""
    file = Path(job.scratch) / name
    first = not file.exists()
    file.touch()
    return first


def writer_killed_once(job):
    """A worker that dies while it writes the third time, once."""
    from workbench.training.online.writers import Writer

    write, calls = Writer(job).write, []

    def writing(*given):
        calls.append(1)
        if len(calls) == 3 and mark(job, "writer-killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        return write(*given)

    return writing


def trainer_killed_once(job, report, write=None):
    """A trainer that dies in its fourth step, once."""

    def die(progress):
        if progress.step == "optimise" and progress.done == 4 and mark(job, "trainer-killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        return report(progress)

    assembly.optimise(job, die, write)


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_worker_and_the_trainer_are_killed_and_the_child_is_the_same(model, here, tmp_path, monkeypatch):
    whole, _ = here(staleness=1, workers=1)
    ws = workspace(tmp_path, model)
    monkeypatch.setattr(assembly, "writer", writer_killed_once)
    monkeypatch.setattr(assembly, "IN_PROCESS", replace(assembly.IN_PROCESS, optimise=trainer_killed_once))
    outcome, seen = run(ws, where="ray", staleness=1, workers=1)
    assert list(ws.root.rglob("writer-killed")), "no worker was killed"
    assert list(ws.root.rglob("trainer-killed")), "the trainer was not killed"
    assert len(seen) == 3 + 4, "killed in its fourth step, it goes on from the checkpoint after the second"
    assert outcome.child.digest == whole.child.digest


def drive(root):
    """A driver that dies in the third step, and its cluster with it."""

    def die(progress):
        if progress.step == "optimise" and progress.done == 3 and "answer_tokens" in progress.facts:
            os.kill(os.getpid(), signal.SIGKILL)

    run(Workspace(Path(root)), where="ray", watch=die, staleness=1, workers=1)


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_driver_is_killed_and_the_round_goes_on_elsewhere(model, here, tmp_path):
    whole, _ = here(staleness=1, workers=1)
    ws = workspace(tmp_path, model)
    driver = multiprocessing.get_context("spawn").Process(target=drive, args=(str(ws.root),))
    driver.start()
    driver.join(180)
    assert driver.exitcode == -signal.SIGKILL
    (begun,) = ws.journal.rounds()
    assert begun.child is None
    outcome, seen = run(Workspace(ws.root), staleness=1, workers=1)
    assert outcome.child.digest == whole.child.digest
    assert len(seen) < 6, "what was done before is not done again"
