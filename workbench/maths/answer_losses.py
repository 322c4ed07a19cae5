"""A loss of answers by themselves, each good or bad: one number per answer, nothing else."""

import torch
from torch import Tensor

from workbench.maths.pairs import require_same_shape


def kto_logit(ratios: Tensor, elsewhere: Tensor, good: Tensor, *, beta: float) -> Tensor:
    """How far each answer is on its side of the reference point: beta (r - z) of a good one, beta (z - r) of a bad one.

    z is the mean log-ratio of answers that belong to other prompts, not below zero and without gradient: the paper's estimate
    of how far the policy has moved from the reference, KL(policy || reference) in nats.

    Args:
        ratios: r, log-prob of each answer under the policy (carries gradient) minus that under the reference, nats,
            summed over its tokens, shape (answers,).
        elsewhere: the same of an answer to another prompt, after this prompt.
        good: whether each answer is good, boolean.
        beta: per nat; how soon an answer is far enough from z to move nothing more.

    Returns:
        Shape (answers,).

    Raises:
        ValueError: the three tensors differ in shape.
    """
    require_same_shape(ratios=ratios, elsewhere=elsewhere, good=good)
    z = elsewhere.detach().mean().clamp(min=0)
    return beta * torch.where(good, ratios - z, z - ratios)


def kto(
    ratios: Tensor, elsewhere: Tensor, good: Tensor, *, beta: float, good_weight: float = 1.0, bad_weight: float = 1.0
) -> Tensor:
    """KTO (Ethayarajh et al., arXiv 2402.01306, eq. 7), per answer: weight (1 - sigma(h)), h of `kto_logit`, in [0, weight].

    Half the weight where policy and reference agree. Arguments as of `kto_logit`; the weights are the paper's lambda_D and
    lambda_U.
    """
    h = kto_logit(ratios, elsewhere, good, beta=beta)
    return torch.where(good, good_weight, bad_weight) * (-h).sigmoid()
