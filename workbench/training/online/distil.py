"""Self-distillation towards earlier policies, at the policy's own answers."""

from workbench.config import OnlineSettings
from workbench.training.online.drawn import Drawn, Loss


def distil(drawn: Drawn, _settings: OnlineSettings) -> Loss:
    """Beta KL to the anchors at each token of its own answers and nothing else (GKD with reverse KL, arXiv 2306.13649).

    The answers are taken as given, as in GKD: which ones come is not learned.
    """
    kl = drawn.kl()
    return Loss(drawn.beta * kl, kl.detach())
