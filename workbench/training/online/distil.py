"""Self-distillation towards earlier policies, at the policy's own answers."""

from workbench.config import OnlineSettings
from workbench.training.online.drawn import Drawn, Loss


def distil(drawn: Drawn, _settings: OnlineSettings) -> Loss:
    """Beta KL to the anchors and nothing else (on-policy distillation with reverse KL, GKD, arXiv 2306.13649)."""
    kl = drawn.kl()
    return Loss(drawn.beta * kl, kl.detach())
