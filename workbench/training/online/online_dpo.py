"""Online DPO: a prompt's fresh answers against each other, labelled by their rewards."""

from workbench.config import OnlineSettings
from workbench.maths import soft_preference
from workbench.training.online.drawn import Drawn, Loss


def online_dpo(drawn: Drawn, _settings: OnlineSettings) -> Loss:
    """DPO on every two fresh answers, with the label the rewards give (arXiv 2402.04792, with soft labels).

    The best against the worst alone would leave the answers between them anywhere. Prompts without reward are labelled half
    and half, which pulls them to the reference.
    """
    away, samples = drawn.logps - drawn.reference(), drawn.rewards.shape[1]
    margin = away.unsqueeze(2) - away.unsqueeze(1)
    difference = drawn.rewards.unsqueeze(2) - drawn.rewards.unsqueeze(1)
    # An answer against itself has a loss, log 2, and no gradient: it is taken out of the sum.
    losses = soft_preference(margin, difference, beta=drawn.beta.unsqueeze(2))
    against_itself = losses.diagonal(dim1=1, dim2=2)
    return Loss((losses.sum(2) - against_itself) / (samples - 1), away.detach())
