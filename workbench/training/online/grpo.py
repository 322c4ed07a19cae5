"""GRPO (Shao et al., arXiv 2402.03300) with the KL to every anchor in place of one reference."""

from workbench.config import OnlineSettings
from workbench.maths import left_out, scaled
from workbench.training.online.drawn import Drawn, Loss


def grpo(drawn: Drawn, settings: OnlineSettings) -> Loss:
    """-A log pi + beta KL: each answer against its group; the KL exact at every token, as a term of the loss.

    A token changes the KL of those after it, too: that part of the gradient is in the advantages, so that the whole climbs
    E[r] - beta E[KL] for answers of any length. Advantages are unbiased unless scaled, and sums over tokens are not divided
    by lengths (Dr. GRPO, arXiv 2503.20783). Every step learns from answers of the policy as it is, so importance ratios are 1.
    """
    kl = drawn.kl()
    advantages = scaled(drawn.rewards) if settings.scaled else left_out(drawn.rewards)
    advantages = advantages - drawn.beta * left_out(kl.detach())
    return Loss(-advantages * drawn.logps + drawn.beta * kl, kl.detach())
