"""Losses, anchors and divergences against values worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.config import APPROXIMATE_LOSSES, EXACT_LOSSES
from workbench.maths import (
    LOSSES,
    PairLogps,
    Weighted,
    geometric_reference,
    kl_per_position,
    kl_to_each,
    require_same_shape,
)

LENGTHS = PairLogps(torch.tensor([4.0, 2.0]), torch.tensor([2.0, 5.0]))
ZERO = PairLogps(torch.zeros(2), torch.zeros(2))


def pair(chosen, rejected, *, dtype=torch.float32):
    return PairLogps(torch.tensor(chosen, dtype=dtype), torch.tensor(rejected, dtype=dtype))


def loss(name, policy, reference, *, beta=0.5, smoothing=0.0, lengths=LENGTHS):
    return LOSSES[name](policy, reference, beta=beta, label_smoothing=smoothing, lengths=lengths)


# margins 2 and -1 against 0: h = 0.5 * (2, -1) = (1, -0.5)
POLICY = pair([-1.0, -3.0], [-3.0, -2.0])
H = (1.0, -0.5)


def log_sigmoid(x):
    return -math.log(1 + math.exp(-x))


def test_sigmoid_by_hand():
    # -ln sigma(1) = ln(1 + e^-1) = 0.313262; -ln sigma(-0.5) = ln(1 + e^0.5) = 0.974077
    assert loss("sigmoid", POLICY, ZERO).tolist() == pytest.approx([0.313262, 0.974077], abs=1e-6)


def test_hinge_by_hand():
    # max(0, 1 - 1) = 0; max(0, 1 + 0.5) = 1.5
    assert loss("hinge", POLICY, ZERO).tolist() == pytest.approx([0.0, 1.5])


def test_robust_by_hand():
    # e = 0.1, h = 1: (-0.9 * -0.313262 + 0.1 * -1.313262) / 0.8 = (0.281936 - 0.131326) / 0.8 = 0.188262
    assert loss("robust", POLICY, ZERO, smoothing=0.1)[0].item() == pytest.approx(0.188262, abs=1e-5)


def test_exo_pair_by_hand():
    # e = 0.1, h = 1: s(1) = 0.731059: 0.731059 (-0.313262 - ln 0.9) + 0.268941 (-1.313262 - ln 0.1)
    #               = 0.731059 * -0.207901 + 0.268941 * 0.989323 = -0.151988 + 0.266069 = 0.114081
    assert loss("exo_pair", POLICY, ZERO, smoothing=0.1)[0].item() == pytest.approx(0.114081, abs=1e-5)


def test_exo_pair_is_zero_where_the_model_says_what_the_labels_say():
    # sigma(h) = 1 - e makes both distributions equal: h = ln((1 - e) / e) = ln 9 at e = 0.1; beta 0.5: margin 2 ln 9
    equal = pair([2 * math.log(9)], [0.0])
    found = loss("exo_pair", equal, pair([0.0], [0.0]), smoothing=0.1)
    assert found.item() == pytest.approx(0, abs=1e-6)


def test_discopop_by_hand():
    # h = 0: mix 0.5: 0.5 ln 2 + 0.5 * 1
    assert loss("discopop", ZERO, ZERO)[0].item() == pytest.approx((math.log(2) + 1) / 2)
    # h = 1: mix = sigma(20), nearly 1: e^-1
    assert loss("discopop", POLICY, ZERO)[0].item() == pytest.approx(math.exp(-1), abs=1e-6)


def test_ipo_by_hand():
    # per token: -1/4 + 3/2 = 1.25 and -3/2 + 2/5 = -1.1; target 1 / (2 * 0.5) = 1: 0.0625 and 4.41
    assert loss("ipo", POLICY, ZERO).tolist() == pytest.approx([0.0625, 4.41])


def test_sigmoid_norm_by_hand():
    assert loss("sigmoid_norm", POLICY, ZERO)[0].item() == pytest.approx(-log_sigmoid(0.5 * 1.25), abs=1e-6)


@pytest.mark.parametrize("name", ["sigmoid", "robust", "sigmoid_norm"])
def test_ln_2_where_policy_and_reference_agree(name):
    assert loss(name, POLICY, POLICY, smoothing=0.2).tolist() == pytest.approx([math.log(2)] * 2)


@pytest.mark.parametrize("name", EXACT_LOSSES)
def test_exact_losses_do_not_see_a_shift_of_both_sides(name):
    shifted = PairLogps(POLICY.chosen + 7, POLICY.rejected + 7)
    smoothing = 0.1 if name == "exo_pair" else 0.0
    before, after = (loss(name, p, ZERO, smoothing=smoothing) for p in (POLICY, shifted))
    assert torch.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize("name", APPROXIMATE_LOSSES)
def test_approximate_losses_do_see_it(name):
    # this is why they are approximate: the reference's normaliser is such a shift and does not cancel
    shifted = PairLogps(POLICY.chosen + 7, POLICY.rejected + 7)
    assert not torch.allclose(loss(name, POLICY, ZERO), loss(name, shifted, ZERO), atol=1e-2)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients(name):
    def scalar(chosen, rejected):
        return loss(name, PairLogps(chosen, rejected), pair([0.3, -0.2], [0.1, 0.4], dtype=torch.float64), smoothing=0.1,
                    lengths=PairLogps(*(t.double() for t in LENGTHS)))  # fmt: skip

    inputs = tuple(torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([-1.0, -3.0], [-3.0, -2.5]))
    assert torch.autograd.gradcheck(scalar, inputs)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"discopop"}))
@pytest.mark.parametrize("margin", [-500.0, 500.0])
def test_gradients_stay_finite_at_extreme_margins(name, margin):
    chosen = torch.tensor([margin], requires_grad=True)
    one = PairLogps(torch.ones(1), torch.ones(1))
    loss(name, PairLogps(chosen, torch.zeros(1)), pair([0.0], [0.0]), smoothing=0.1, lengths=one).sum().backward()
    assert torch.isfinite(chosen.grad).all()


def test_shapes_that_differ_are_refused_by_name():
    with pytest.raises(ValueError, match=r"policy_chosen \(2,\).*reference_chosen \(1,\)"):
        loss("sigmoid", POLICY, pair([0.0], [0.0]))
    require_same_shape(a=torch.zeros(2), b=torch.zeros(2))


def test_geometric_reference_by_hand():
    # 0.25 * (-4, -8) + 0.75 * (-2, 0) = (-2.5, -2)
    found = geometric_reference([Weighted(pair([-4.0], [-8.0]), 0.25), Weighted(pair([-2.0], [0.0]), 0.75)])
    assert (found.chosen.item(), found.rejected.item()) == (-2.5, -2.0)


@pytest.mark.parametrize("weights", [(), (0.5, 0.4), (0.7, 0.7)])
def test_weights_that_do_not_sum_to_one_are_refused(weights):
    with pytest.raises(ValueError, match="geometric reference"):
        geometric_reference([Weighted(POLICY, w) for w in weights])


def test_geometric_reference_carries_no_gradient():
    chosen = torch.tensor([1.0], requires_grad=True)
    assert not geometric_reference([Weighted(PairLogps(chosen, torch.zeros(1)), 1.0)]).chosen.requires_grad


def test_kl_by_hand():
    # p = (1/2, 1/2), q = (1/4, 3/4): 0.5 ln 2 + 0.5 ln(2/3) = 0.5 ln(4/3) = 0.143841
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    assert kl_per_position(p, q).item() == pytest.approx(0.143841, abs=1e-6)
    assert kl_per_position(p + 5, q - 3).item() == pytest.approx(0.143841, abs=1e-5)
    # and 0.25 ln(1/2) + 0.75 ln(3/2) = 0.130812 the other way
    there, itself = kl_to_each(q, [p, q])
    assert (there.there.item(), itself.there.item()) == (pytest.approx(0.130812, abs=1e-6), 0)
    assert (there.back.item(), itself.back.item()) == (pytest.approx(0.143841, abs=1e-6), 0)


@given(st.lists(st.floats(-20, 20), min_size=6, max_size=6))
def test_kl_is_not_negative_and_zero_at_itself(numbers):
    p, q = torch.tensor(numbers[:3])[None], torch.tensor(numbers[3:])[None]
    assert kl_per_position(p, q).item() >= -1e-6
    assert kl_per_position(p, p).item() == pytest.approx(0, abs=1e-6)


def test_optimum_of_the_pair_loss_is_the_product_of_anchors_times_exp_of_reward():
    """Enumerable policy, full coverage: eight answers, labels drawn from Bradley-Terry with a known reward.

    The implemented loss is minimised over all ordered pairs, weighted by how likely each verdict is; the optimum must
    be pi ∝ prod_k pi_k^(w_k) exp(r / beta).
    """
    generator = torch.Generator().manual_seed(0)
    beta, answers = 0.7, 8
    reward = torch.randn(answers, dtype=torch.float64, generator=generator)
    anchors = [torch.randn(answers, dtype=torch.float64, generator=generator).log_softmax(0) for _ in range(3)]
    weights = (0.5, 0.3, 0.2)
    first, second = (
        index.flatten() for index in torch.meshgrid(torch.arange(answers), torch.arange(answers), indexing="ij")
    )
    chance = (reward[first] - reward[second]).sigmoid()
    reference = geometric_reference(
        [Weighted(PairLogps(a[first], a[second]), w) for a, w in zip(anchors, weights, strict=True)]
    )
    logits = torch.zeros(answers, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        policy = logits.log_softmax(0)
        per_pair = loss("sigmoid", PairLogps(policy[first], policy[second]), reference, beta=beta, lengths=reference)
        total = (chance * per_pair).sum()
        total.backward()
        return total

    optimizer.step(closure)
    log_product = sum(w * a for a, w in zip(anchors, weights, strict=True)) + reward / beta
    assert torch.allclose(logits.softmax(0), log_product.softmax(0), atol=1e-6)
