"""Objectives of fresh answers on a policy that can be enumerated: worked out by hand, and where they converge to."""

import math

import pytest
import torch

from workbench.bench.online_toy import Table, total_variation
from workbench.config import OnlineSettings
from workbench.maths import left_out, scaled, soft_preference
from workbench.training.online import OBJECTIVES, Drawn

REWARD = {"rewards": [{"by": "rule:own-words"}]}


def settings(name):
    return OnlineSettings.model_validate({"objective": name} | (REWARD if name != "distil" else {}))


@pytest.mark.parametrize("objective", ["grpo", "rloo", "dpo"])
def test_two_anchors_and_a_reward_meet_at_their_product(objective):
    """prod_k pi_k^(w_k) exp(r / beta), normalised: total variation at most 0.02."""
    table, beta = Table(), 0.8
    found = table.climb(settings(objective), beta=beta, steps=1500, samples=256)
    # By hand, prompt 0: the anchors' log-probs weighted, plus rewards over beta, through a softmax.
    weights = [math.exp(float(m + r / beta)) for m, r in zip(table.mean[0], table.rewards[0], strict=True)]
    torch.testing.assert_close(table.optimum(beta)[0], torch.tensor(weights) / sum(weights))
    assert total_variation(found, table.optimum(beta)) <= 0.02


def test_distilling_ends_at_the_weighted_mean_of_the_anchors():
    table = Table()
    found = table.climb(settings("distil"), beta=1.0, steps=600, samples=256)
    assert total_variation(found, table.mean.softmax(-1)) <= 0.02


def test_the_best_of_n_earns_more():
    table = Table()
    found = table.climb(settings("best"), beta=0.05, steps=300, samples=4)
    start = torch.full_like(found, 1 / found.shape[1])
    assert bool(((found * table.rewards).sum(-1) > (start * table.rewards).sum(-1) + 0.3).all())


def test_advantages_by_hand():
    rewards = torch.tensor([[1.0, 2.0, 6.0]])
    # Others' means: 4, 3.5, 1.5.
    assert left_out(rewards).tolist() == [[-3.0, -1.5, 4.5]]
    # Mean 3, standard deviation sqrt((4 + 1 + 9) / 3).
    spread = math.sqrt(14 / 3)
    torch.testing.assert_close(scaled(rewards), torch.tensor([[-2 / spread, -1 / spread, 3 / spread]]))
    assert scaled(torch.full((1, 3), 1.7)).tolist() == [[0, 0, 0]]  # whose mean is off by rounding
    assert left_out(torch.ones(1, 3)).tolist() == [[0, 0, 0]]


def test_a_soft_preference_is_lowest_where_the_margin_is_the_difference_over_beta():
    margin = torch.linspace(-10, 10, 2001, dtype=torch.float64)
    losses = soft_preference(margin, torch.full_like(margin, 1.5), beta=0.5)
    assert float(margin[losses.argmin()]) == pytest.approx(3.0, abs=0.01)


def test_losses_by_hand():
    logps = torch.log(torch.tensor([[0.5, 0.25]]))
    drawn = Drawn(logps, torch.tensor([[1.0, 0.0]]), torch.tensor([[0.1]]), torch.tensor([[True]]),
                  lambda: torch.log(torch.tensor([[0.25, 0.25]])), lambda: torch.tensor([[0.2, 0.2]]))  # fmt: skip
    grpo = OBJECTIVES["grpo"](drawn, settings("grpo"))
    # Advantages 1 and -1: log 2 + 0.02, and -log 4 + 0.02.
    torch.testing.assert_close(grpo.per_sample, torch.tensor([[math.log(2) + 0.02, -math.log(4) + 0.02]]))
    rloo = OBJECTIVES["rloo"](drawn, settings("rloo"))
    gap = 1 - 0.1 * math.log(2)  # k1 is log 2 and 0
    torch.testing.assert_close(rloo.per_sample, torch.tensor([[gap * math.log(2), -gap * math.log(4)]]))
    torch.testing.assert_close(rloo.kl, torch.tensor([[math.log(2), 0.0]]))
    dpo = OBJECTIVES["dpo"](drawn, settings("dpo"))
    label, logit = 1 / (1 + math.exp(-1)), 0.1 * math.log(2)  # the same pair, seen from either side
    by_hand = label * math.log1p(math.exp(-logit)) + (1 - label) * math.log1p(math.exp(logit))
    torch.testing.assert_close(dpo.per_sample, torch.full((1, 2), by_hand))
    best = OBJECTIVES["best"](drawn, settings("best"))
    torch.testing.assert_close(best.per_sample, torch.tensor([[2 * math.log(2) + 0.02, 0.02]]))


def test_prompts_without_reward_are_held_alone():
    logps = torch.log(torch.tensor([[0.5, 0.25]])).requires_grad_()
    drawn = Drawn(logps, torch.zeros(1, 2), torch.tensor([[0.1]]), torch.tensor([[False]]),
                  logps.detach, lambda: 0 * logps)  # fmt: skip
    for name in OBJECTIVES:
        (gradient,) = torch.autograd.grad(OBJECTIVES[name](drawn, settings(name)).per_sample.mean(), logps)
        assert gradient.tolist() == [[0.0, 0.0]], name


@pytest.mark.parametrize(("objective", "rewarded"), [("grpo", 1.0), ("grpo", 0.0), ("best", 0.0)])
def test_the_kl_of_answers_of_two_tokens_is_climbed_too(objective, rewarded):
    """Against autograd on the enumerated E[r] - beta sum of KLs, of a policy of two tokens with two values each."""
    first, second = torch.tensor([0.3, -0.2]).requires_grad_(), torch.tensor([[0.5, 0.0], [-1.0, 0.4]]).requires_grad_()
    anchor_first, anchor_second = (
        torch.tensor([0.0, 1.0]).log_softmax(0),
        torch.tensor([[0.2, 0.1], [0.0, 2.0]]).log_softmax(1),
    )
    rewards, beta = rewarded * torch.tensor([[1.0, 0.0], [0.5, 2.0]]), 0.7
    p, q = first.log_softmax(0), second.log_softmax(1)
    joint = (p[:, None] + q).exp()
    kls = (p.exp() * (p - anchor_first)).sum() + (q.exp() * (q - anchor_second)).sum(1)  # by the first token
    wanted = (joint * (rewards - beta * kls[:, None])).sum()
    expected = torch.autograd.grad(wanted, (first, second), retain_graph=True)
    # All four answers, each as often as it comes, stand for a sample without noise.
    copies = (joint.detach() * 100_000).round().long().flatten()
    pick = torch.arange(4).repeat_interleave(copies)
    drawn = Drawn((p[:, None] + q).flatten()[pick][None], rewards.flatten()[pick][None], torch.tensor([[beta]]),
                  torch.tensor([[rewarded > 0]]), lambda: torch.zeros(1, len(pick)), lambda: kls[pick // 2][None])  # fmt: skip
    found = torch.autograd.grad(-OBJECTIVES[objective](drawn, settings(objective)).per_sample.mean(), (first, second))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)
