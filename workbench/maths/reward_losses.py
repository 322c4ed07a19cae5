"""What a reward model is trained on, per pair."""

import torch.nn.functional as F
from torch import Tensor


def bradley_terry(chosen: Tensor, rejected: Tensor, margin: Tensor) -> Tensor:
    """-log sigma(r(chosen) - r(rejected) - margin): the Bradley-Terry likelihood, with a margin (Llama 2, arXiv 2307.09288, eq. 2).

    Args:
        chosen: rewards of chosen answers, shape (pairs,).
        rejected: rewards of rejected ones, shape (pairs,).
        margin: by how much the chosen one has to be ahead, shape (pairs,).
    """
    return -F.logsigmoid(chosen - rejected - margin)


def off_centre(chosen: Tensor, rejected: Tensor) -> Tensor:
    """(r(chosen) + r(rejected))^2, which only holds rewards near zero: a pair says nothing of their level (arXiv 2312.09244, eq. 4)."""
    return (chosen + rejected).square()
