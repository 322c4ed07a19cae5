"""Best-of-n distillation: the answer with the highest reward is copied."""

import torch
import torch.nn.functional as F

from workbench.config import OnlineSettings
from workbench.maths import left_out
from workbench.training.online.drawn import Drawn, Loss


def best_of(drawn: Drawn, _settings: OnlineSettings) -> Loss:
    """-log pi of the best of n answers (iterated: BOND, arXiv 2407.14622, without its backward part) + beta KL.

    The KL is that of answers of any length, as in `grpo`: a token changes the KL of those after it, too.
    """
    samples = drawn.rewards.shape[1]
    best = F.one_hot(drawn.rewards.argmax(1), samples).to(drawn.logps) * samples
    kl = drawn.kl()
    copied = torch.where(drawn.rewarded, -best * drawn.logps, torch.zeros_like(drawn.logps))
    return Loss(copied + drawn.beta * (left_out(kl.detach()) * drawn.logps + kl), kl.detach())
