"""Penalties and what is done after training, on a tiny model: off means off, and each does what its formula says."""

import json
import math
import shutil

import pytest
import torch

from tests.training_kit import TRAINING, World, quiet, weights
from workbench.config import AfterSettings, MergingSettings, MovingSettings, PenaltySettings
from workbench.errors import PolicyError, WiringError
from workbench.maths import PairLogps, kl_per_position
from workbench.models.forward import CompletionStates, collate, completion_logits, completion_logps
from workbench.models.head import DirectHead
from workbench.models.kl_head import kl_to_anchors
from workbench.models.load import Family, load_tokenizer, trainable
from workbench.models.tokens import encode_pair
from workbench.models.weights import speaking_as, trained_weights, weights_of
from workbench.tasks import AGE, Anchor, Progress, SliceWeights
from workbench.training.after import Averages, _blocks
from workbench.training.batches import PairBatch
from workbench.training.carried import MovingReference, Steering
from workbench.training.penalties import Pass, fisher, hold, near


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("held"), age=lambda i: str(i % 3))


@pytest.fixture(scope="module")
def first(world):
    return world.adapter(world.train(), "1")


@pytest.fixture(scope="module")
def plain(world, first):
    return weights(world.train(**second(first)))


def second(first, **changes):
    """A round on the first one, held by it."""
    return {"parent": first, "anchors": (Anchor(first, 1.0),), **changes}


def differ(one, other):
    return max(float((one[name] - value).abs().max()) for name, value in other.items())


@pytest.mark.parametrize("direction", ["reverse", "forward"])
@pytest.mark.parametrize("trained_head", [False, True])
def test_kl_to_anchors_is_the_weighted_sum_and_has_its_gradient(direction, trained_head):
    torch.manual_seed(0)
    head = DirectHead(6, 11, bias=False).double().requires_grad_(trained_head)
    states = torch.randn(300, 6, dtype=torch.float64, requires_grad=True)
    anchors = [torch.randn(300, 6, dtype=torch.float64) for _ in range(2)]
    shares = torch.rand(300, 2, dtype=torch.float64)
    with torch.no_grad():
        given = [head(a) for a in anchors] if trained_head else anchors
    found = kl_to_anchors(CompletionStates(states, head), given, shares, direction=direction)
    (slope,) = torch.autograd.grad((found * torch.linspace(0, 1, 300)).sum(), states)

    p, q = head(states), [head(a).detach() for a in anchors]

    def kl(one, other):
        return (one.softmax(-1) * (one.log_softmax(-1) - other.log_softmax(-1))).sum(-1)

    each = [kl(p, a) if direction == "reverse" else kl(a, p) for a in q]
    expected = sum(shares[:, k] * value for k, value in enumerate(each))
    (wanted,) = torch.autograd.grad((expected * torch.linspace(0, 1, 300)).sum(), states)
    assert torch.allclose(found, expected, atol=1e-9)
    assert torch.allclose(slope, wanted, atol=1e-9)
    if direction == "reverse":
        assert torch.allclose(each[0].float(), kl_per_position(p, q[0]), atol=1e-5)


def rows_of(world, model, pairs):
    tokenizer = load_tokenizer(str(world.model))
    encoded = [encode_pair(tokenizer, p, max_length=64) for p in pairs]
    return collate([*(e.chosen for e in encoded), *(e.rejected for e in encoded)], pad_id=0)


def test_a_model_speaks_as_another_policy_and_then_as_itself(world, first):
    model = trainable(first, TRAINING)
    rows = rows_of(world, model, world.pairs[:4])
    before = completion_logps(model, rows).detach()
    for policy in (first, world.base):
        with speaking_as(model, weights_of(policy, model)):
            as_other = completion_logps(model, rows)
        family = Family(policy)
        with family.using(policy) as alone:
            assert torch.allclose(as_other, completion_logps(alone, rows), atol=1e-5)
    assert torch.equal(completion_logps(model, rows).detach(), before)


def test_what_was_computed_before_keeps_its_way_back(world, first):
    model = trainable(first, TRAINING)
    rows = rows_of(world, model, world.pairs[:2])
    completion_logps(model, rows).sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    logps = completion_logps(model, rows)
    with speaking_as(model, weights_of(world.base, model)):
        completion_logps(model, rows)
    logps.sum().backward()
    assert all(torch.equal(p.grad, expected[name]) for name, p in model.named_parameters() if p.requires_grad)


def test_a_policy_of_another_rank_cannot_be_compared(world, first):
    model = trainable(world.base, TRAINING.model_copy(update={"rank": 2}))
    with pytest.raises(PolicyError, match="choose policies of one rank"):
        weights_of(first, model)


def test_a_policy_of_another_scaling_is_scaled(world, first, tmp_path):
    """The same product: half the scaling in the configuration, twice the matrix."""
    model = trainable(first, TRAINING)
    twice = tmp_path / "twice"
    shutil.copytree(first.path, twice)
    config = json.loads((twice / "adapter_config.json").read_text())
    (twice / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": config["lora_alpha"] * 2}))
    own, scaled = (weights_of(p, model) for p in (first, first._replace(path=str(twice))))
    for name, value in own.items():
        assert torch.equal(scaled[name], value * (2 if ".lora_B." in name else 1))


def test_full_weights_do_not_stand_in_for_an_adapter(world, first):
    stranger = first._replace(digest="e" * 64, kind="full", path=str(world.model))
    with pytest.raises(PolicyError, match="choose policies of one kind"):
        weights_of(stranger, trainable(first, TRAINING))


def batch(margins, *, start, old):
    policy = PairLogps(torch.tensor(margins, requires_grad=True), torch.zeros(len(margins)))
    ones = torch.ones(len(margins))
    whole = PairBatch(
        rows=None, reference=policy, lengths=PairLogps(ones, ones), weights=ones, start_margin=torch.tensor(start),
        anchors=ones[:, None], old=torch.tensor(old), good=ones > 0,
    )  # fmt: skip
    return Pass(None, whole, policy, None, 0.5)


def test_hold_by_hand():
    # logits 0.5 x (1, 3, 0) against 0.5 x (2, 2, 2): lost 0.5, -0.5, 1; the last pair is new: 0.25 x 4 / 3
    given = batch([1.0, 3.0, 0.0], start=[2.0, 2.0, 2.0], old=[True, True, False])
    found = hold(4.0)(given)
    assert found.item() == pytest.approx(1 / 3)
    (slope,) = torch.autograd.grad(found, given.policy.chosen)
    # 4 / 3 x 2 x 0.5 x -0.5
    assert slope.tolist() == pytest.approx([-2 / 3, 0, 0])


def test_ewc_by_hand():
    model = torch.nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[1.0, 5.0]])
    penalty = near({"weight": torch.tensor([[3.0, 4.0]])}, {"weight": torch.tensor([[2.0, 10.0]])}, 0.5)
    # 0.5 / 2 x (2 x 2^2 + 10 x 1^2)
    assert penalty(Pass(model, None, None, None, 0.1)).item() == pytest.approx(4.5)


def test_fisher_is_the_variance_of_the_score_over_both_labels():
    model = torch.nn.Linear(2, 1, bias=False)
    inputs = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0]])]
    found = fisher(model, inputs, model, beta=0.4)["weight"]
    # at logit 0 each label has chance 1/2 and the score is +-beta/2 dD/dw: E = beta^2 / 4 x^2
    expected = sum(0.04 * x**2 for x in inputs) / 2
    assert torch.allclose(found, expected)


def test_steering_raises_the_weight_above_the_budget_and_lowers_it_below():
    term = Steering("kl", 0.1)
    term.saw(0.8, 4)
    term.saw(0.4, 4)  # 1.2 / 8 = 0.15: half above, cut at 0.2, halved
    term.after_step()
    assert term.weight == pytest.approx(1.1)
    term.saw(0.36, 4)  # 0.09: a tenth below
    term.after_step()
    assert term.weight == pytest.approx(1.1 * 0.95)
    both = Steering("kl", 0.1, 2.0)
    both.saw(0.4, 4)  # at the first budget
    both.saw(6.6, 3, of=1)  # 2.2: a tenth above the second
    both.after_step()
    assert both.weight == pytest.approx(1.05)
    both.saw(0.36, 4)  # a tenth below
    both.saw(3.0, 3, of=1)  # half below
    both.after_step()
    assert both.weight == pytest.approx(1.05 * 0.95)
    free = Steering("kl", None)
    free.saw(9.0, 1)
    free.after_step()
    assert free.weight == 1


def test_a_moving_reference_follows_the_policy_when_it_is_time(world, first):
    model = trainable(first, TRAINING)
    moving = MovingReference(model, MovingSettings(share=0.25, rate=0.5, every=2))
    rows = rows_of(world, model, world.pairs[:2])
    with torch.no_grad():
        chosen, rejected = completion_logps(model, rows).chunk(2)
    found = moving.reference(PairLogps(torch.zeros(2), torch.full((2,), -4.0)), rows)
    assert torch.allclose(found.chosen, chosen / 4)
    assert torch.allclose(found.rejected, 0.75 * -4 + rejected / 4)
    before = {name: value.clone() for name, value in moving.weights.items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in before:
                parameter.add_(1.0)
    moving.after_step()
    assert all(torch.equal(moving.weights[name], value) for name, value in before.items())
    moving.after_step()
    assert all(torch.allclose(moving.weights[name], value + 0.5) for name, value in before.items())


def test_a_hard_update_puts_a_copy_of_the_policy_in_the_references_place(world, first):
    model = trainable(first, TRAINING)
    moving = MovingReference(model, MovingSettings(share=1.0, rate=1.0, every=3))
    trained = {name: p for name, p in model.named_parameters() if name in moving.weights}
    for step in (1, 2, 3, 4):  # the third one is tau
        with torch.no_grad():
            for parameter in trained.values():
                parameter.add_(0.1)
        then = {name: p.detach().clone() for name, p in trained.items()} if step == 3 else {}
        moving.after_step()
        same = all(torch.equal(moving.weights[name], p) for name, p in trained.items())
        assert same == (step == 3)
        assert all(torch.equal(moving.weights[name], value) for name, value in then.items())
    rows = rows_of(world, model, world.pairs[:2])
    with speaking_as(model, moving.weights):
        chosen, rejected = completion_logps(model, rows).chunk(2)
    found = moving.reference(PairLogps(torch.zeros(2), torch.zeros(2)), rows)  # of the static one nothing is left
    assert torch.equal(found.chosen, chosen)
    assert torch.equal(found.rejected, rejected)


@pytest.mark.parametrize(
    "off",
    [
        {"penalties": PenaltySettings(kl_direction="forward")},
        {"after": AfterSettings(keep=(0.0,))},
        {"moving": MovingSettings(rate=0.5)},
        {"merging": MergingSettings(share=0.5, density=0.1)},
    ],
)
def test_off_is_off_bit_for_bit(world, first, plain, off):
    found = weights(world.train(**second(first, versions=(world.version,), **off)))
    assert all(torch.equal(found[name], value) for name, value in plain.items())


HELD = {
    "kl to the anchors": {"kl_new": 100.0, "kl_old": 100.0},
    "forward kl": {"kl_new": 100.0, "kl_old": 100.0, "kl_direction": "forward"},
    "ewc": {"ewc": 1e7, "ewc_pairs": 4},
}


@pytest.mark.parametrize("name", HELD)
def test_a_heavy_penalty_keeps_the_child_near(world, first, plain, name):
    heavy = second(first, penalties=PenaltySettings(**HELD[name]), history=(world.version,))
    model = trainable(first, TRAINING)
    rows = rows_of(world, model, world.pairs[:8])

    def kl(state):
        named = {n.replace(".weight", ".default.weight"): value for n, value in state.items()}
        with torch.no_grad():
            before = completion_logits(model, rows).logits
            with speaking_as(model, named):
                return float(kl_per_position(completion_logits(model, rows).logits, before).mean())

    assert kl(weights(world.train(**heavy))) < kl(plain) / 2


def test_a_penalised_trajectory_does_not_depend_on_batches(world, first):
    penalties = PenaltySettings(kl_new=0.5, kl_old=1.0, kl_base=0.5, hold=2.0, ewc=10.0, ewc_pairs=3)
    fewer = world.written([p for p in world.pairs if p.split == "train"][:21])  # the last step has five: 5, 4 + 1, …
    changes = second(
        first, version=fewer, penalties=penalties, history=(world.version,), moving=MovingSettings(share=0.3)
    )
    one, *others = (
        weights(
            world.train(
                **changes,
                training=TRAINING.model_copy(update={"epochs": 1, "batch_size": size, "accumulation": 8 // size}),
            )
        )
        for size in (8, 4, 1)
    )
    for other in others:
        assert differ(one, other) < 2e-5


def test_a_steered_round_goes_on_as_it_would_have(world, first):
    penalties = PenaltySettings(kl_new=0.5, kl_budget=0.01, kl_base=0.1, kl_base_budget=0.05)
    changes = second(first, penalties=penalties, moving=MovingSettings(share=0.5, rate=0.3, every=2))
    whole = weights(world.train(**changes))
    job = world.job(**changes)
    from workbench.errors import StopRequested
    from workbench.training.optimise import optimise

    with pytest.raises(StopRequested):
        optimise(job, lambda p: p.step == "optimise" and p.done == 3)
    optimise(job, quiet)
    assert all(torch.equal(weights(job.output)[name], value) for name, value in whole.items())


def test_pairs_of_a_slice_have_anchors_of_their_own(world, first):
    both = (Anchor(first, 1.0), Anchor(world.base, 0.0))
    everywhere = SliceWeights(AGE, {str(age): (0.0, 1.0) for age in range(3)})
    found = weights(world.train(parent=first, anchors=both, by_slice=everywhere))
    base_alone = weights(world.train(parent=first, anchors=(Anchor(world.base, 1.0),)))
    assert all(torch.equal(found[name], value) for name, value in base_alone.items())
    some = weights(world.train(parent=first, anchors=both, by_slice=SliceWeights(AGE, {"1": (0.0, 1.0)})))
    assert differ(some, base_alone) > 0


def test_the_average_of_the_best_worth_is_kept(world, first, plain):
    seen: list[Progress] = []
    job = world.job(**second(first, versions=(world.version,), after=AfterSettings(keep=(0.25, 0.75))))
    from workbench.training.optimise import optimise

    optimise(job, lambda p: seen.append(p) and False)
    tried = [p.facts for p in seen if p.step == "average"]
    keep = tried[-1]["keep"]
    start, child = weights(first.path), weights(job.output)
    assert keep in {0.25, 0.75}
    for name, value in child.items():
        assert torch.allclose(value, keep * start[name] + (1 - keep) * plain[name], atol=1e-6)


def test_blocks_of_layers_are_tried_one_after_the_other():
    names = [f"model.layers.{i}.weight" for i in range(4)]
    assert list(_blocks(names, 2).values()) == [0, 0, 1, 1]
    assert list(_blocks(["embed.weight", *names], 4).values()) == [0, 0, 1, 2, 3]
    states = [dict.fromkeys(names, torch.tensor(value)) for value in (1.0, 0.0)]
    tried = Averages(*states, AfterSettings(keep=(0.0, 0.5), blocks=2))
    assert [stage((0.5, 0.5)) for stage in tried.stages()] == [
        [(0.0, 0.0), (0.5, 0.5)], [(0.0, 0.5), (0.5, 0.5)], [(0.5, 0.0), (0.5, 0.5)],
    ]  # fmt: skip
    assert [float(v) for v in tried.of((0.0, 0.5)).values()] == [1.0, 1.0, 0.5, 0.5]


def test_averaging_without_select_pairs_is_refused(world, first):
    with pytest.raises(WiringError, match="no version has one"):
        world.train(**second(first, versions=(world.without_select,), after=AfterSettings(keep=(0.5,))))


def test_an_update_is_freed_of_what_the_first_round_did(world, first, plain):
    freed = second(first, lineage=(world.base, first), after=AfterSettings(overlap=0.0, energy=1.0))
    child = weights(world.train(**freed))
    start = weights(first.path)
    for name, value in child.items():
        along = float(((value - start[name]) * start[name]).sum())
        scale = float((value - start[name]).norm() * start[name].norm())
        assert abs(along) <= 1e-4 * max(scale, 1e-12), name
    assert differ(child, plain) > 0


def test_trained_weights_are_a_copy(world):
    model = trainable(world.base, TRAINING)
    found = trained_weights(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert max(float(value.abs().max()) for name, value in found.items() if "lora_B" in name) == 0
    assert not math.isnan(sum(float(v.sum()) for v in found.values()))
