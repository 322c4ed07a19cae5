"""Equivalence classes of runs on a tiny model, and wirings that must be refused before step 1."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from trl.trainer.dpo_config import DPOConfig

from tests.tiny_model import build_tiny_model
from tests.training_kit import TRAINING, World, quiet, weights
from workbench import onepage
from workbench.cli.bars import LABELS
from workbench.config import NumericsSettings, RewardModelSettings, RoundSettings, TrainingSettings, settings_from
from workbench.errors import ConfigError, NumericsError, PolicyError, StopRequested, WiringError
from workbench.models.forward import collate, completion_logits
from workbench.models.load import Family, load_tokenizer, trainable
from workbench.models.score_table import PairScore, write_table
from workbench.models.sharing import layout_of
from workbench.models.tokens import encode_pair
from workbench.tasks import Anchor, PolicyRef
from workbench.training import optimise as training
from workbench.training.checkpoints import newest_verified
from workbench.training.memory import STATES_BYTES, USED, Fit, kept_of
from workbench.training.online.trainer import OnlineTrainer
from workbench.training.optimise import optimise
from workbench.training.reward_model import RewardTrainer


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model, a version of 24 training pairs, and the base's scores of it."""
    return World(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def first(world):
    """The child of a round on the base, as parent of a second one."""
    return world.adapter(world.train(), "1")


def assert_close(found, expected, tolerance=2e-5):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=tolerance), name


def proof_of(world, **changes):
    seen = []
    world.train(lambda p: seen.append(p) and False, **changes)
    return next(p.facts for p in seen if p.step == "prove")


def test_first_loss_is_ln_2_where_the_parent_is_the_only_anchor(world, first):
    for parent in (world.base, first):
        facts = proof_of(world, parent=parent, anchors=(Anchor(parent, 1.0),))
        # weights 0.5 and 1 alternate in key order: the mean weight of the proof's pairs times ln 2
        assert facts["measured_loss"] == pytest.approx(facts["expected_loss"], abs=1e-3)
        assert facts["expected_loss"] / math.log(2) == pytest.approx(
            round(facts["expected_loss"] / math.log(2) * 16) / 16
        )


def test_two_anchors_start_at_the_predicted_loss(world, first):
    facts = proof_of(world, parent=first, anchors=(Anchor(first, 0.5), Anchor(world.base, 0.5)))
    assert facts["measured_loss"] == pytest.approx(facts["expected_loss"], abs=1e-3)
    weighted = [p.weight for p in world.pairs if p.split == "train"]
    assert facts["expected_loss"] < max(weighted) * math.log(2)


@pytest.fixture
def gradients(monkeypatch):
    """The trained weights' gradients of every step, as they are before they are clipped."""
    seen, honest = [], torch.nn.utils.clip_grad_norm_

    def clip(parameters, *rest, **more):
        parameters = [p for p in parameters if p.grad is not None]
        seen.append([p.grad.clone() for p in parameters])
        return honest(parameters, *rest, **more)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    return seen


@pytest.mark.parametrize("continued", [False, True])
def test_trainer_equals_one_page(world, first, gradients, continued):
    parent, folder = (first, first.path) if continued else (world.base, onepage.BASE)
    anchors = (Anchor(parent, 0.75), Anchor(world.base, 0.25)) if continued else (Anchor(world.base, 1.0),)
    paths = [(first.path, 0.75), (onepage.BASE, 0.25)] if continued else [(onepage.BASE, 1.0)]
    child = onepage.run_round(str(world.model), folder, paths, world.pairs, beta=0.1, settings=TRAINING)
    assert child.first_loss == pytest.approx(child.expected_loss, abs=1e-4)
    page = gradients[0]
    gradients.clear()
    assert_close(weights(world.train(parent=parent, anchors=anchors)), child.weights)
    largest = max(float(g.abs().max()) for g in page)
    assert largest > 0
    for found, expected in zip(gradients[0], page, strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-4 * largest)


def test_batch_8_times_1_equals_1_times_8(world):
    one = weights(world.train(training=TRAINING.model_copy(update={"batch_size": 8, "accumulation": 1})))
    eight = weights(world.train(training=TRAINING.model_copy(update={"batch_size": 1, "accumulation": 8})))
    assert_close(one, eight)


def norm_in_float64(self, hidden):
    """Llama's normalisation, which rounds to float32 whatever it is given."""
    return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


@pytest.fixture
def in_float64(monkeypatch):
    """Rounds are trained in float64, those of one page, too."""
    for module in (training, onepage):
        honest = module.trainable
        monkeypatch.setattr(module, "trainable", lambda *given, honest=honest: honest(*given).double())
    monkeypatch.setattr(LlamaRMSNorm, "forward", norm_in_float64)


def of_21_pairs(world, **changes):
    """A round whose last step has five pairs."""
    pairs = [p for p in world.pairs if p.split == "train"][:21]
    settings = TRAINING.model_copy(update={"epochs": 1, **changes})
    return {"version": world.written(pairs), "training": settings}, pairs


def test_the_pairs_of_a_short_last_step_count_alike_however_they_are_batched(world, in_float64):
    ends, losses = [], []
    for size in (8, 4, 1):  # five pairs are 5, 4 + 1, and 1 + 1 + 1 + 1 + 1
        seen = []
        changes, _ = of_21_pairs(world, batch_size=size, accumulation=8 // size)
        ends.append(weights(world.train(lambda p, seen=seen: seen.append(p) and False, **changes)))
        losses.append([p.facts["loss"] for p in seen if p.step == "optimise"])
    assert len(losses[0]) == 3
    for found, told in zip(ends, losses, strict=True):
        assert_close(found, ends[0], tolerance=1e-8)
        assert told == pytest.approx(losses[0], abs=1e-4)


def test_trainer_equals_one_page_in_float64(world, in_float64, tmp_path):
    """All steps to 1e-8, where both are held by the same scores, which are float32."""
    changes, pairs = of_21_pairs(world)
    tokenizer, frozen = load_tokenizer(str(world.model)), onepage.load(str(world.model), onepage.BASE)
    scores = {}
    for pair in pairs:
        both = encode_pair(tokenizer, pair, max_length=TRAINING.max_length)
        with torch.no_grad():
            nats = [
                float(onepage.logp(frozen, tokenizer, pair.prompt, text, max_length=TRAINING.max_length))
                for text in (pair.chosen, pair.rejected)
            ]
        scores[pair.key] = PairScore(*nats, *(len(side.completion) for side in both))
    write_table(tmp_path, scores)
    child = onepage.run_round(
        str(world.model), onepage.BASE, [(onepage.BASE, 1.0)], pairs, beta=0.1, settings=changes["training"]
    )
    found = weights(world.train(tables={world.base.digest: str(tmp_path)}, **changes))
    assert all(value.dtype == torch.float64 for value in found.values())
    assert_close(found, child.weights, tolerance=1e-8)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_neither_layout_nor_batches_change_a_trajectory(world, monkeypatch, in_float64, method):
    """All steps of a round in float64, to 1e-8: padded, shared and packed rows, one batch or many."""
    ends = {}
    for layout, size, batches, tokens in (
        ("plain", 4, 2, 10**6),
        ("shared", 4, 2, 10**6),
        ("packed", 4, 2, 10**6),
        ("packed", 8, 1, 10**6),
        ("packed", 1, 8, 10**6),
        ("plain", 8, 1, 250),
        ("packed", 8, 1, 150),
        ("packed", 8, 1, 1),
    ):
        monkeypatch.setattr(training, "layout_of", lambda model, layout=layout: layout_of(model) and layout)
        monkeypatch.setattr(training, "fit", lambda *_, tokens=tokens, **__: Fit(tokens, recompute=False))
        changed = {"method": method, "batch_size": size, "accumulation": batches, "checkpoint_every": 6}
        folder = world.train(training=TRAINING.model_copy(update=changed))
        name = "adapter_model" if method == "lora" else "model"
        ends[layout, size, tokens] = load_file(f"{folder}/{name}.safetensors")
    alone = ends.pop(("plain", 4, 10**6))
    assert all(value.dtype == torch.float64 for value in alone.values())
    assert len(ends) == 7
    for found in ends.values():
        assert_close(found, alone, tolerance=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_activations_computed_again_give_the_same_bytes(world, monkeypatch, dtype):
    numerics = NumericsSettings(dtype=dtype)
    kept = weights(world.train(numerics=numerics))
    honest, found, seen = training.fit, [], []

    def tight(model, batches, *, layout, free, others):
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        kept = kept_of(model, layout)
        need = max(batches) * kept.per_token + kept.always
        found.append(
            honest(model, batches, layout=layout, free=STATES_BYTES * trained + round(0.9 * need / USED), others=others)
        )
        return found[-1]

    monkeypatch.setattr(training, "fit", tight)
    again = weights(world.train(lambda p: seen.append(p) and False, numerics=numerics))
    assert found[0].recompute
    assert next(p.facts for p in seen if p.step == "fit") == {"tokens_per_pass": found[0].tokens, "recompute": 1}
    assert all(torch.equal(again[name], kept[name]) for name in kept)


def test_without_memory_a_round_still_ends_a_pair_at_a_time(world, monkeypatch):
    expected, seen = weights(world.train()), []
    monkeypatch.setattr(training, "free_memory", lambda device: 0)
    found = weights(world.train(lambda p: seen.append(p) and False))
    assert next(p.facts for p in seen if p.step == "fit") == {"tokens_per_pass": 1, "recompute": 1}
    assert_close(found, expected)


@pytest.mark.parametrize(("layout", "notice"), [("plain", "plain_rows"), ("shared", "padded_rows")])
def test_a_model_that_takes_no_packed_rows_is_told_of(world, monkeypatch, layout, notice):
    monkeypatch.setattr(training, "layout_of", lambda model: layout_of(model) and layout)
    seen = []
    world.train(lambda p: seen.append(p) and False)
    assert next(p.facts for p in seen if p.step == "fit").keys() == {"tokens_per_pass", notice}
    assert notice in LABELS


def test_same_job_gives_the_same_bytes(world):
    first, second = (weights(world.train()) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_metrics_of_tokens_change_no_bit_and_are_means_over_a_steps_tokens(world, method):
    settings = TRAINING.model_copy(update={"method": method, "epochs": 1, "batch_size": 3, "accumulation": 2})
    told, ends = [], []
    for wanted in (False, True):
        seen = []
        asked = settings.model_copy(update={"token_metrics": wanted})
        output = world.train(lambda p, seen=seen: seen.append(p) and False, training=asked)
        told.append([p.facts for p in seen if p.step == "optimise"])
        ends.append([file.read_bytes() for file in sorted(Path(output).glob("*.safetensors"))])
    assert ends[0] == ends[1] != []
    names = {f"{what}_{side}" for what in ("entropy", "top1") for side in ("chosen", "rejected")}
    assert names <= LABELS.keys()
    assert [facts["loss"] for facts in told[0]] == [facts["loss"] for facts in told[1]]
    assert not any(names & facts.keys() for facts in told[0])
    assert all(names <= facts.keys() for facts in told[1])
    # The first step looks at the base, whose distributions over all words are these.
    family, pairs = Family(world.base), sorted((p for p in world.pairs if p.split == "train"), key=lambda p: p.key)
    first = [pairs[i] for i in np.random.default_rng(settings.seed).permutation(len(pairs))[:6]]
    with family.using(world.base) as model:
        for side in ("chosen", "rejected"):
            sides = [getattr(encode_pair(family.tokenizer, p, max_length=settings.max_length), side) for p in first]
            found = completion_logits(model, collate(sides, pad_id=0))
            entropy = torch.distributions.Categorical(logits=found.logits).entropy().mean()
            right = (found.logits.argmax(-1) == found.targets).float().mean()
            assert told[1][0][f"entropy_{side}"] == pytest.approx(float(entropy), abs=1e-4)
            assert told[1][0][f"top1_{side}"] == pytest.approx(float(right), abs=1e-6)


def test_metrics_of_tokens_are_part_of_settings_where_asked_for_and_refused_where_there_are_none():
    """Rounds planned before there were any keep their identity."""
    assert "token_metrics" not in TrainingSettings().model_dump(mode="json")
    assert TrainingSettings(token_metrics=True).model_dump(mode="json")["token_metrics"] is True
    asked = {"training": {"token_metrics": True}}
    for kind, more in ((RoundSettings, {"method": "plain", "online": {"objective": "grpo", "rewards": [{"by": "rule:short"}]}}),
                       (RewardModelSettings, {})):  # fmt: skip
        kind.model_validate(more)
        with pytest.raises(ConfigError, match="training.token_metrics"):
            settings_from(more | asked, kind, where="test")


def test_in_bfloat16_every_step_starts_from_the_weights_of_the_last(world):
    """Autocast may keep a weight's first conversion: the loss then stays where it began, whatever the optimizer does."""
    facts = {"float32": [], "bfloat16": []}
    fast = TRAINING.model_copy(update={"learning_rate": 0.05, "epochs": 5})
    for dtype, seen in facts.items():
        numerics = NumericsSettings(dtype=dtype)
        world.train(lambda p, seen=seen: seen.append(p) and False, numerics=numerics, training=fast)
    losses = {d: [p.facts["loss"] for p in seen if p.step == "optimise"] for d, seen in facts.items()}
    assert losses["float32"][-1] < 0.9 * losses["float32"][0]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], abs=0.05)
    assert facts["bfloat16"][-1].facts["kl_parent"] > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_batches_are_packed(world, monkeypatch, dtype):
    """A probe that fails for another reason must not end in the slow layout without a word."""
    seen = []
    honest = training.PairCollator
    monkeypatch.setattr(
        training,
        "PairCollator",
        lambda pad, *, layout, **more: seen.append(layout) or honest(pad, layout=layout, **more),
    )
    world.train(numerics=NumericsSettings(dtype=dtype))
    assert seen == ["packed"]


def test_over_a_base_in_four_bits_what_is_trained_is_not_rounded(world, first, monkeypatch):
    """TRL casts it to bfloat16 where a model says that it was loaded so."""
    held = {"parent": first, "anchors": (Anchor(first, 1.0),)}
    expected, honest = weights(world.train(**held)), training.trainable

    def loaded_so(*given):
        model = honest(*given)
        model.is_loaded_in_4bit = True
        return model

    monkeypatch.setattr(training, "trainable", loaded_so)
    found = weights(world.train(**held))
    assert all(found[name].dtype == torch.float32 for name in expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    for other in (OnlineTrainer, RewardTrainer):
        assert other.__init__ is training.AnchoredDPOTrainer.__init__


def test_an_anchor_of_weight_zero_is_no_anchor(world, first):
    # Settings refuse weight 0; the arithmetic must not care all the same.
    with_zero = weights(world.train(anchors=(Anchor(world.base, 1.0), Anchor(first, 0.0))))
    without = weights(world.train())
    assert all(torch.equal(with_zero[name], without[name]) for name in without)


def test_stopped_and_resumed_equals_uninterrupted(world):
    job = world.job()
    with pytest.raises(StopRequested, match="run the same round again"):
        optimise(job, lambda p: p.step == "optimise" and p.done == 3)
    assert newest_verified(world.root / job.scratch, "plan").name == "checkpoint-3"
    optimise(job, quiet)
    expected = weights(world.train())
    assert all(torch.equal(weights(job.output)[name], expected[name]) for name in expected)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "foreign"])
def test_a_damaged_checkpoint_is_not_used(world, damage):
    job = world.job()
    with pytest.raises(StopRequested):
        optimise(job, lambda p: p.step == "optimise" and p.done == 3)
    newest = newest_verified(world.root / job.scratch, "plan")
    victim = newest / "optimizer.pt"
    match damage:
        case "flip":
            content = bytearray(victim.read_bytes())
            content[len(content) // 2] ^= 1
            victim.write_bytes(content)
        case "truncate":
            victim.write_bytes(victim.read_bytes()[:-1])
        case "remove":
            victim.unlink()
        case "foreign":
            job = dataclasses.replace(job, plan="another plan")
    assert newest_verified(world.root / job.scratch, job.plan) in {None, newest.with_name("checkpoint-2")}
    optimise(job, quiet)
    expected = weights(world.train())
    assert all(torch.equal(weights(job.output)[name], expected[name]) for name in expected)


def test_only_the_upper_layers_are_adapted_where_asked_and_the_next_round_keeps_to_it(world):
    upper = TRAINING.model_copy(update={"upper_layers": 1})
    child = world.adapter(world.train(training=upper), "2")
    names = weights(child.path)
    assert names
    assert all(".layers.1." in name for name in names)
    assert {n.replace(".layers.0.", ".layers.1.") for n in weights(world.train())} == set(names)
    anchors = (Anchor(child, 1.0),)
    again = weights(world.train(parent=child, anchors=anchors, training=upper))
    assert again.keys() == names.keys()
    with pytest.raises(PolicyError, match="upper_layers = 0, but parent 222222222222 was made with another number"):
        world.train(parent=child, anchors=anchors)
    with pytest.raises(PolicyError, match="upper_layers = 3, but the base has 2 layers; give at most 2"):
        world.train(training=TRAINING.model_copy(update={"upper_layers": 3}))


def test_full_fine_tuning_gives_a_folder_that_loads(world):
    folder = world.train(training=TRAINING.model_copy(update={"method": "full", "learning_rate": 1e-3}))
    child = PolicyRef("f" * 64, "full", folder, world.base.digest, str(world.model), "tok")
    with Family(world.base).using(child) as model:
        trained = model.get_input_embeddings().weight.clone()
    with Family(world.base).using(world.base) as model:
        assert not torch.equal(trained, model.get_input_embeddings().weight)


def test_an_adapter_over_full_weights_of_its_own_is_refused_before_it_trains(world):
    folder = world.train(training=TRAINING.model_copy(update={"method": "full", "learning_rate": 1e-3}))
    child = PolicyRef("f" * 64, "full", folder, world.base.digest, str(world.model), "tok")
    with pytest.raises(PolicyError, match="parent ffffffffffff has full weights of its own"):
        trainable(child, TRAINING)


def test_another_alpha_than_the_parents_is_refused(world, first):
    with pytest.raises(
        PolicyError, match=r"training.alpha = 16, but parent 111111111111 has alpha 8; set training.alpha = 8"
    ):
        trainable(first, TRAINING.model_copy(update={"alpha": 16}))


def test_a_resumed_round_computes_batches_as_it_began(world, monkeypatch):
    job, asked = world.job(), []
    monkeypatch.setattr(training, "fit", lambda *_, **__: asked.append(1) or Fit(150, recompute=True))
    with pytest.raises(StopRequested):
        optimise(job, lambda p: p.step == "optimise" and p.done == 3)
    told = []
    optimise(job, lambda p: told.append(p) and False)
    assert len(asked) == 1
    assert next(p.facts for p in told if p.step == "fit") == {"tokens_per_pass": 150, "recompute": 1.0}
    other = world.job()  # nothing to go on from: memory is looked at anew
    optimise(other, quiet)
    assert len(asked) == 2


def test_of_several_gpus_one_trains(world, monkeypatch):
    monkeypatch.setattr(
        DPOConfig,
        "n_gpu",
        property(lambda self: self.__dict__.get("_n_gpu", 4) if self.__dict__.get("_n_gpu") == 1 else 4),
    )
    assert training.config_of(world.job(), 24, 4, 2).n_gpu == 1


# --- five mis-wirings -------------------------------------------------------------------------------------------


def test_wrong_parent_is_refused(world, first):
    """The plan says the first child; the weights on disk are the base's own fresh adapter."""
    other = world.train(training=TRAINING.model_copy(update={"seed": 9}))
    swapped = first._replace(path=other)
    with pytest.raises(WiringError, match="parent .* differ from the policy's"):
        world.train(parent=swapped, anchors=(Anchor(world.base, 1.0),))


def test_wrong_reference_is_refused(world, first, monkeypatch):
    """Rows carry the base's scores as reference where the plan names the first child."""
    honest = training.train_rows

    def wired_wrongly(*args, anchors, **kwargs):
        return honest(*args, anchors=[(anchors[0][0], kwargs["parent"])], **kwargs)

    monkeypatch.setattr(training, "train_rows", wired_wrongly)
    with pytest.raises(WiringError, match="reference is not the one planned"):
        world.train(parent=world.base, anchors=(Anchor(first, 1.0),))


def test_dropped_adapter_is_refused(world, first, monkeypatch):
    """The trainer starts from the base although the parent is an adapter: the loss alone would still be plausible."""
    honest = training.trainable
    monkeypatch.setattr(training, "trainable", lambda parent, *rest: honest(world.base, *rest))
    with pytest.raises(WiringError, match="adapter was dropped"):
        world.train(parent=first, anchors=(Anchor(first, 1.0),))


def test_stale_cache_is_refused(world, first):
    """The table of an anchor holds another policy's scores."""
    tables = world.tables | {first.digest: world.tables[world.base.digest]}
    with pytest.raises(WiringError, match="cache is stale"):
        world.train(anchors=(Anchor(first, 1.0),), tables=tables)


def test_changed_tokenizer_is_refused(world, tmp_path):
    """Scores were made with another chat template, so the answers have other lengths."""
    changed = build_tiny_model(tmp_path / "changed")
    template = changed / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_end|>", "<|im_end|><|im_end|>"))
    moved = world.base._replace(path=str(changed), base_path=str(changed))
    with pytest.raises(WiringError, match="tokenizer, chat template or max_length"):
        world.train(parent=moved, anchors=(Anchor(moved, 1.0),))


def test_weights_that_no_step_used_are_refused(world, monkeypatch):
    """The trainer computes with a converted copy of its weights while the optimizer moves the originals."""
    monkeypatch.setattr(training, "apply_numerics", lambda _: torch.autocast("cpu", torch.bfloat16, cache_enabled=True))
    numerics = NumericsSettings(dtype="bfloat16")
    fast = TRAINING.model_copy(update={"method": "full", "learning_rate": 0.01, "epochs": 5})
    with pytest.raises(WiringError, match="saved policy is not the one that was trained"):
        world.train(numerics=numerics, training=fast)


def test_non_finite_numbers_fail_the_round_at_once(world, monkeypatch):
    steps = []
    honest = training.AnchoredDPOTrainer.measure

    def poisoned(self, model, inputs):
        parts, margin = honest(self, model, inputs)
        bad = self.state.global_step == 2
        return parts._replace(total=parts.total * math.nan) if bad else parts, margin

    monkeypatch.setattr(training.AnchoredDPOTrainer, "measure", poisoned)
    job = world.job()
    with pytest.raises(NumericsError, match="step 3"):
        optimise(job, lambda p: steps.append(p.done) and False)
    assert max(steps) == 2
    assert not (world.root / job.output / "adapter_model.safetensors").exists()
