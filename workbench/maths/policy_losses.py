"""Losses that learn from a policy's own samples and their rewards. Pure; one number per sample or pair.

GRPO, RLOO and DPO with the KL to the anchors climb E[r] - beta sum_k w_k KL(pi || pi_k), whose optimum is
prod_k pi_k^(w_k) exp(r / beta), normalised (docs/online.md). Rewards are without gradient.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def left_out(rewards: Tensor) -> Tensor:
    """Rewards minus the mean of the group's others (RLOO, arXiv 2402.14740, eq. 9), without bias.

    Minus the group's own mean every step would be smaller by (samples - 1) / samples, and the KL would weigh more.

    Args:
        rewards: shape (prompts, samples), at least two samples.

    Returns:
        Advantages, shape (prompts, samples).
    """
    samples = rewards.shape[1]
    return (rewards - rewards.mean(1, keepdim=True)) * samples / (samples - 1)


def scaled(rewards: Tensor) -> Tensor:
    """Rewards minus their group's mean, over its standard deviation (GRPO, arXiv 2402.03300, eq. 3).

    It weighs prompts by how alike their rewards are, which moves the optimum (Dr. GRPO, arXiv 2503.20783).

    Args:
        rewards: shape (prompts, samples).

    Returns:
        Advantages, shape (prompts, samples); 0 throughout a group whose rewards are equal.
    """
    away = rewards - rewards.mean(1, keepdim=True)
    spread = rewards.std(1, keepdim=True, unbiased=False)
    # Not `spread > 0`: the mean of equal numbers may be off by rounding.
    differ = rewards.amax(1, keepdim=True) > rewards.amin(1, keepdim=True)
    return torch.where(differ, away / spread.clamp_min(1e-12), torch.zeros_like(away))


def soft_preference(margin: Tensor, difference: Tensor, *, beta: Tensor | float) -> Tensor:
    """DPO whose label is the Bradley-Terry probability that rewards give: cross-entropy of sigma(d) and sigma(beta m).

    With hard labels the optimum has no finite margin; with these it is beta m = d, so that beta log(pi / reference) is the
    reward up to a constant of the prompt (Rafailov et al., arXiv 2305.18290, section 4).

    Args:
        margin: log-prob of the first sample minus the second, each relative to the reference, nats, any shape.
        difference: reward of the first minus the second, of the same shape.
        beta: weight of the reference.
    """
    return F.binary_cross_entropy_with_logits(beta * margin, difference.sigmoid().to(margin), reduction="none")


MOST_IMPORTANT = 2.0
"""An importance weight is cut here: an answer that became far likelier since would drown the others."""


def importance(away: Tensor) -> Tensor:
    """Weights of answers that an earlier policy drew: pi / mu, cut at `MOST_IMPORTANT` (as V-trace's, arXiv 1802.01561, eq. 1).

    Args:
        away: log-prob under the policy in training minus that under the one that drew, of whole answers, nats, any shape.
    """
    return away.exp().clamp(max=MOST_IMPORTANT)
