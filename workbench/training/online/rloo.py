"""RLOO (Ahmadian et al., arXiv 2402.14740) with the KL to every anchor in place of one reference."""

from workbench.config import OnlineSettings
from workbench.maths import left_out
from workbench.training.online.drawn import Drawn, Loss


def rloo(drawn: Drawn, _settings: OnlineSettings) -> Loss:
    """-A log pi, where the KL is in the reward: log pi - sum_k w_k log pi_k of the answer itself (k1), which is unbiased."""
    kl = drawn.logps.detach() - drawn.reference()
    return Loss(-left_out(drawn.rewards - drawn.beta * kl) * drawn.logps, kl)
