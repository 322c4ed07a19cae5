"""Passes side by side: the gradient of one pass, the same bytes every time, and only where nothing else is asked of the model."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.test_training import assert_close, norm_in_float64
from tests.training_kit import TRAINING, World, quiet, weights
from workbench.config import (
    MovingSettings,
    NumericsSettings,
    ObjectiveSettings,
    OnlineSettings,
    TrainingSettings,
)
from workbench.errors import NumericsError, StopRequested
from workbench.models.forward import collate, completion_logps
from workbench.models.load import Family
from workbench.models.tokens import Encoded
from workbench.training import lanes as module
from workbench.training import optimise as training
from workbench.training.lanes import LANES, WORTH, divided, has_lanes, lanes
from workbench.training.optimise import optimise
from workbench.training.trainer import AnchoredDPOTrainer

TWO = NumericsSettings(threads=2)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("lanes"))


@pytest.fixture
def turns(monkeypatch):
    """Every batch is worth dividing; how many passes each turn has."""
    monkeypatch.setattr(module, "WORTH", 1)
    seen, honest = [], AnchoredDPOTrainer._side_by_side

    def side_by_side(self, lanes, passes):
        seen.append(len(passes))
        return honest(self, lanes, passes)

    monkeypatch.setattr(AnchoredDPOTrainer, "_side_by_side", side_by_side)
    return seen


@pytest.mark.parametrize(("tokens", "per_step"), [(10**6, [2, 2]), (150, None)])
def test_no_trajectory_changes(world, turns, monkeypatch, tokens, per_step):
    """All steps in float64 to 1e-8: a batch in one pass, in two at once, and in turns of two at once."""
    honest = training.trainable
    monkeypatch.setattr(training, "trainable", lambda *given: honest(*given).double())
    monkeypatch.setattr("transformers.models.llama.modeling_llama.LlamaRMSNorm.forward", norm_in_float64)
    alone = weights(world.train())
    assert turns == []
    fit = training.fit
    monkeypatch.setattr(training, "fit", lambda *given, **more: fit(*given, **more)._replace(tokens=tokens))
    told, plain = [], []
    found = weights(world.train(lambda p: told.append(p) and False, numerics=TWO))
    assert set(turns) <= {1, 2}
    assert 2 in turns
    if per_step:
        assert turns == per_step * (len(turns) // 2)  # two batches a step
    assert all(value.dtype == torch.float64 for value in alone.values())
    assert_close(found, alone, tolerance=1e-8)
    world.train(lambda p: plain.append(p) and False)
    losses = [[p.facts["loss"] for p in seen if p.step == "optimise"] for seen in (told, plain)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)  # as TRL rounds it
    margins = [[p.facts["accuracy"] for p in seen if p.step == "optimise"] for seen in (told, plain)]
    assert margins[0] == margins[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_who_is_first_changes_no_bit_and_neither_does_a_stop(world, turns, dtype):
    numerics = NumericsSettings(threads=2, dtype=dtype)
    first, again = (weights(world.train(numerics=numerics)) for _ in range(2))
    job = world.job(numerics=numerics)
    with pytest.raises(StopRequested):
        optimise(job, lambda p: p.step == "optimise" and p.done == 3)
    optimise(job, quiet)
    assert 2 in turns
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert torch.equal(value, weights(job.output)[name])


def test_numbers_that_are_not_finite_fail_the_round_here_too(world, turns, monkeypatch):
    honest = AnchoredDPOTrainer.measure

    def poisoned(self, model, inputs):
        parts, margin = honest(self, model, inputs)
        return parts._replace(total=parts.total * float("nan")), margin

    monkeypatch.setattr(AnchoredDPOTrainer, "measure", poisoned)
    with pytest.raises(NumericsError):
        world.train(numerics=TWO)
    assert turns


def test_answers_come_in_order_and_all_cores_are_back():
    release = threading.Event()

    def work(each):
        if each == 0:
            assert release.wait(10)
        release.set()
        return each, torch.get_num_threads(), torch.is_autocast_enabled("cpu")

    with lanes(NumericsSettings(threads=4, dtype="bfloat16"), wanted=True) as two:
        assert two.run(work, [0, 1]) == [(0, 4 // LANES, True), (1, 4 // LANES, True)]
        assert torch.get_num_threads() == 4
    torch.set_num_threads(1)
    with lanes(TWO, wanted=False) as none:
        assert none is None


def test_a_lane_that_fails_is_told_of_once_the_other_has_ended():
    ended, failed = [], threading.Event()

    def work(each):
        if each == 0:
            failed.set()
            raise NumericsError("lost")
        assert failed.wait(10)
        ended.append(each)

    with lanes(TWO, wanted=True) as two, pytest.raises(NumericsError, match="lost"):
        two.run(work, [0, 1])
    assert ended == [1]
    torch.set_num_threads(1)


def meet(both):
    both.wait(10)


def test_passes_of_one_model_in_two_threads_read_their_own_positions(world):
    rows = [
        collate([Encoded(tuple(range(1, 2 + k)), (5, 6, 7)[: 1 + k])] * 2, pad_id=0, layout="packed") for k in range(2)
    ]
    family, both = Family(world.base), threading.Barrier(2)
    with family.using(world.base) as model:
        alone = [completion_logps(model, each) for each in rows]
        # Both are in the model before either has come to its head.
        hook = model.get_input_embeddings().register_forward_pre_hook(lambda *_: meet(both))
        with torch.no_grad(), ThreadPoolExecutor(2) as threads:
            found = list(threads.map(lambda each: completion_logps(model, each), rows))
        hook.remove()
    for one, other in zip(alone, found, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@given(st.lists(st.tuples(st.integers(1, 900), st.sampled_from("abcdef")), min_size=1, max_size=9))
def test_parts_are_all_pairs_once_with_those_of_a_prompt_together(pairs):
    lengths, prompts = zip(*pairs, strict=True)
    parts = divided(lengths, prompts)
    assert sorted(i for part in parts for i in part) == list(range(len(pairs)))
    assert all(parts)
    assert len(parts) == (1 if sum(lengths) < WORTH else min(LANES, len(set(prompts))))
    for prompt in set(prompts):
        assert sum(any(prompts[i] == prompt for i in part) for part in parts) == 1
    if len(parts) == LANES and len(set(prompts)) == len(pairs):
        # Longest first to the shorter part: they differ by no more than the longest pair.
        assert abs(sum(lengths[i] for i in parts[0]) - sum(lengths[i] for i in parts[1])) <= max(lengths)


NO_LANES = {
    "one core": {"numerics": NumericsSettings(threads=1)},
    "three cores": {"numerics": NumericsSettings(threads=3)},
    "a GPU": {"numerics": NumericsSettings(threads=2, device="cuda")},
    "fresh answers": {"online": OnlineSettings(objective="grpo", rewards=({"by": "rule:own-words"},))},
    "a moving reference": {"moving": MovingSettings(share=0.5)},
    "pairs weighed against each other": {"objective": ObjectiveSettings(loss="cppo")},
    "metrics of tokens": {"training": TrainingSettings(token_metrics=True)},
    "all weights": {"training": TrainingSettings(method="full")},
}


@pytest.mark.parametrize("why", NO_LANES)
def test_one_after_the_other_where_the_model_is_asked_for_more(world, why):
    plain = world.job(numerics=TWO, training=TRAINING)
    assert has_lanes(plain, ["hold"], "packed", recompute=False)
    changed = world.job(**{"numerics": TWO, "training": TRAINING} | NO_LANES[why])
    assert not has_lanes(changed, ["hold"], "packed", recompute=False)


def test_one_after_the_other_where_memory_layout_or_penalties_forbid(world):
    job = world.job(numerics=TWO)
    assert not has_lanes(job, [], "packed", recompute=True)
    assert not has_lanes(job, [], "shared", recompute=False)
    assert not has_lanes(job, ["hold", "kl"], "packed", recompute=False)
