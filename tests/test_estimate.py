"""The arithmetic of a dry run, by hand."""

import dataclasses

import pytest

from workbench.config import NumericsSettings, OnlineSettings, PenaltySettings, RoundSettings
from workbench.rounds.estimate import EFFICIENCY, SUITE_TOKENS, Shape, estimate
from workbench.tasks import Anchor, Plan, PolicyRef, VersionRef, Workload

SHAPE = Shape(parameters=1_000_000, adapted=500, width=10, layers=2)
LOAD = Workload(
    train_pairs=25,
    left_out=0,
    train_tokens=10_000,
    test_pairs={"v1": 1000, "v2": 8},
    test_tokens={"v1": 3_000, "v2": 1_000},
    longest=500,
    flops_per_s=1e9 / EFFICIENCY,
)


def policy(name):
    return PolicyRef(name, "adapter", "", "base", "", "tokenizer")


def plan(*anchors, **training):
    values = {"training": {"batch_size": 4, "accumulation": 3, "rank": 8} | training,
              "evaluation": {"suites": ["choice"], "samples": 10, "max_new_tokens": 5}}  # fmt: skip
    settings = RoundSettings.model_validate(values)
    return Plan(
        number=2,
        parent=policy("parent"),
        base=policy("base"),
        version=VersionRef("v2", ""),
        anchors=tuple(Anchor(policy(a), 1 / len(anchors)) for a in anchors),
        history=(VersionRef("v1", ""),),
        update=False,
        objective=settings.objective,
        training=settings.training,
        numerics=settings.numerics,
        evaluation=settings.evaluation,
        gate=settings.gate,
    )


def test_steps_are_counted_over_all_epochs():
    # 25 pairs: 7 batches of 4, 3 steps of 3 batches; 50 pairs in a row: 13 batches, 5 steps
    assert estimate(plan("parent"), LOAD, SHAPE, {}).steps == 3
    assert estimate(plan("parent", epochs=2), LOAD, SHAPE, {}).steps == 5


def test_an_anchor_costs_one_scoring_pass_and_nothing_in_training():
    one, two = (estimate(plan(*a), LOAD, SHAPE, {}).seconds for a in (("parent",), ("parent", "base")))
    # 2 operations x 1e6 parameters x 10,000 tokens = 2e10, at 1e9 per second
    assert one["score"] == pytest.approx(20)
    assert two["score"] == pytest.approx(40)
    assert one["optimise"] == two["optimise"] == pytest.approx(40)  # LoRA: 4 operations


def test_full_training_costs_half_as_much_again_and_all_its_parameters():
    full = estimate(plan("parent", method="full"), LOAD, SHAPE, {})
    assert full.seconds["optimise"] == pytest.approx(60)
    assert full.trainable == 1_000_000
    lora = estimate(plan("parent"), LOAD, SHAPE, {})
    assert lora.trainable == 8 * 500
    # a gradient and two moments for each trained parameter; the adapter lies on top of its base
    assert full.memory_bytes - lora.memory_bytes == 12 * (1_000_000 - 4_000) - 4 * 4_000


def test_half_the_layers_need_half_the_backward_pass():
    half = estimate(plan("parent", upper_layers=1), LOAD, SHAPE, {})  # of two
    assert half.seconds["optimise"] == pytest.approx(20 + 10)
    assert half.trainable == 8 * 500 / 2
    all_of_them = estimate(plan("parent"), LOAD, SHAPE, {})
    # what is kept of the upper layer alone, and half an adapter, its gradient and moments
    assert all_of_them.memory_bytes - half.memory_bytes == 98 * 10 * 1 * (500 + 3 * 400) + 16 * 2_000


def test_evaluation_reads_tests_suites_and_samples_under_every_policy():
    # base, parent and child; 4,000 test tokens, one suite, 10 samples of 5 tokens on 2 versions, read once more for KL
    tokens = 3 * (4_000 + SUITE_TOKENS + 100) + 3 * 100
    assert estimate(plan("parent"), LOAD, SHAPE, {}).seconds["evaluate"] == pytest.approx(2e6 * tokens / 1e9)


def test_longer_batches_need_more_memory():
    small, large = (estimate(plan("parent", batch_size=n), LOAD, SHAPE, {}).memory_bytes for n in (1, 2))
    # one pair of mean length more: 98 bytes x 10 wide x 2 layers x 400 tokens
    assert large - small == 98 * 10 * 2 * 400


def test_bfloat16_keeps_less():
    half = dataclasses.replace(plan("parent"), numerics=NumericsSettings(dtype="bfloat16"))
    single, less = (estimate(p, LOAD, SHAPE, {}).memory_bytes for p in (plan("parent"), half))
    # 36 bytes less, of a batch of one pair of 500 tokens and three of 400
    assert single - less == 36 * 10 * 2 * (500 + 3 * 400)


def test_fresh_answers_are_counted_by_their_own_settings_and_not_by_those_of_pairs():
    online = OnlineSettings.model_validate({"objective": "distil", "steps": 7, "samples": 3, "max_new_tokens": 20})
    small, large = (
        estimate(dataclasses.replace(plan("parent", batch_size=n, epochs=n), online=online), LOAD, SHAPE, {})
        for n in (1, 4)
    )
    assert small == large
    assert small.steps == 7
    pairs = estimate(plan("parent", batch_size=1), LOAD, SHAPE, {})
    # a prompt of at most 500 tokens with three answers of 20 in place of a pair of 500
    assert small.memory_bytes - pairs.memory_bytes == 98 * 10 * 2 * 3 * 20


def test_logits_that_a_kl_keeps_under_a_trained_head_are_counted():
    shape, held = SHAPE._replace(words=1000), PenaltySettings(kl_new=0.1, kl_base=0.1)

    def memory(of, penalties=PenaltySettings(), online=OnlineSettings()):  # noqa: B008 - frozen
        return estimate(dataclasses.replace(of, penalties=penalties, online=online), LOAD, shape, {}).memory_bytes

    full, lora = plan("parent", "base", method="full"), plan("parent", "base")
    # to two anchors and the base: 4 bytes x 1,000 words x one pair of 500 tokens and three of 400
    assert memory(full, held) - memory(full) == 3 * 4 * 1000 * (500 + 3 * 400)
    assert memory(lora, held) == memory(lora)
    exact, sampled = (
        OnlineSettings.model_validate(
            {"objective": name, "rewards": [{"by": "rule:short"}], "samples": 3, "max_new_tokens": 20}
        )
        for name in ("grpo", "rloo")
    )
    # of a prompt of at most 500 tokens with three answers of 20, to two anchors
    assert memory(full, online=exact) - memory(full, online=sampled) == 2 * 4 * 1000 * (500 + 3 * 20)


def test_what_n_can_show_is_said_for_every_number():
    sights = {s.name: s for s in estimate(plan("parent"), LOAD, SHAPE, {"choice": 300}).sights}
    assert set(sights) == {"accuracy/v1", "accuracy/v2", "tax/choice"}
    assert sights["accuracy/v2"].change is None  # 8 pairs: not even all flips going one way would show
    assert 0 < sights["accuracy/v1"].change < sights["tax/choice"].change < 0.2
