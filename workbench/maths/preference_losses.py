"""Preference losses: one number per pair, nothing else.

Let ``h = beta * (D_policy - D_reference)`` be the logit of a pair, D the difference of summed log-probabilities
between chosen and rejected. A loss of `h` alone is exact under the geometric reference; one that needs the sides
apart, or divides them by their length, is approximate (`workbench.config` says which is which).
"""

import math
from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.config import losses_elsewhere
from workbench.errors import ConfigError
from workbench.maths.pairs import PairLogps, require_same_shape


class PairLoss(Protocol):
    """A preference loss."""

    def __call__(
        self, policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float, lengths: PairLogps
    ) -> Tensor:
        """Loss per pair, shape (pairs,). `lengths` are completion lengths in tokens."""
        ...


def pair_logit(policy: PairLogps, reference: PairLogps, *, beta: float) -> Tensor:
    """Beta * (D_policy - D_reference), shape (pairs,).

    Args:
        policy: log-probs under the policy being trained (carries gradient).
        reference: log-probs under the frozen reference.
        beta: inverse temperature, per nat; larger pulls harder towards the reference.

    Raises:
        ValueError: the four tensors differ in shape.
    """
    require_same_shape(
        policy_chosen=policy.chosen,
        policy_rejected=policy.rejected,
        reference_chosen=reference.chosen,
        reference_rejected=reference.rejected,
    )
    return beta * (policy.margin - reference.margin)


def sigmoid(
    policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float, lengths: PairLogps
) -> Tensor:
    """-log sigma(h): DPO (Rafailov et al., arXiv 2305.18290, eq. 7). Equals ln 2 wherever the two margins agree."""
    return -F.logsigmoid(pair_logit(policy, reference, beta=beta))


def hinge(
    policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float, lengths: PairLogps
) -> Tensor:
    """max(0, 1 - h): SLiC-HF's loss with DPO's logit (arXiv 2305.10425, 2309.06657). 1 where the margins agree."""
    return torch.relu(1 - pair_logit(policy, reference, beta=beta))


def robust(
    policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float, lengths: PairLogps
) -> Tensor:
    """Unbiased DPO under flipped labels: rDPO (Chowdhury et al., arXiv 2403.00409).

    ``(-(1 - e) log sigma(h) + e log sigma(-h)) / (1 - 2e)`` with e the share of flips. Unbounded below: a falling
    loss is no proof of learning. ln 2 where the margins agree, whatever e is.
    """
    h = pair_logit(policy, reference, beta=beta)
    e = label_smoothing
    return (-(1 - e) * F.logsigmoid(h) + e * F.logsigmoid(-h)) / (1 - 2 * e)


def exo_pair(
    policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float, lengths: PairLogps
) -> Tensor:
    """Reverse KL between the pair's model and label distributions: EXO (Ji et al., arXiv 2402.00856, eq. 16).

    ``sigma(h) (log sigma(h) - log(1 - e)) + sigma(-h) (log sigma(-h) - log e)`` with e = label_smoothing > 0.
    """
    h = pair_logit(policy, reference, beta=beta)
    win, lose = math.log(1 - label_smoothing), math.log(label_smoothing)
    return h.sigmoid() * (F.logsigmoid(h) - win) + (-h).sigmoid() * (F.logsigmoid(-h) - lose)


DISCOPOP_TAU = 0.05
"""Temperature of the mixture in DiscoPOP, as published."""


def discopop(
    policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float, lengths: PairLogps
) -> Tensor:
    """Log-ratio modulated loss: DiscoPOP (Lu et al., arXiv 2406.08414).

    ``(1 - m) (-log sigma(h)) + m exp(-h)`` with ``m = sigma(h / tau)``. At h = 0: (ln 2 + 1) / 2.
    """
    h = pair_logit(policy, reference, beta=beta)
    mix = (h / DISCOPOP_TAU).sigmoid()
    return (1 - mix) * -F.logsigmoid(h) + mix * (-h).exp()


def fpo(policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float, lengths: PairLogps) -> Tensor:
    """-(1 - sigma(h))^2 log sigma(h): focalised preferences (LifeAlign, arXiv 2509.17183). ln 2 / 4 at h = 0."""
    h = pair_logit(policy, reference, beta=beta)
    return -((-h).sigmoid() ** 2) * F.logsigmoid(h)


COPR_REWARD = 1 / 3
"""Mean of Beta(1, 2), the distribution that COPR draws a pair's reward from; the mean adds no noise."""


def copr(policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float, lengths: PairLogps) -> Tensor:
    """Squared distance from the optimum over the two answers: COPR (Zhang et al., arXiv 2402.14228) for pairs.

    With D = log p(chosen) - log p(rejected), the policy restricted to the two answers has log-probabilities
    log sigma(D) and log sigma(-D), and the optimum has D* = D_reference + 2 r / beta with rewards +-r. The loss is the
    mean of the two squared distances. At D = D_reference = 0: (log sigma(2 r / beta) + ln 2)^2 / 2 + (…)^2 / 2.
    """
    pair_logit(policy, reference, beta=beta)  # for its check of shapes
    mine, best = policy.margin, reference.margin + 2 * COPR_REWARD / beta
    gaps = (F.logsigmoid(mine) - F.logsigmoid(best), F.logsigmoid(-mine) - F.logsigmoid(-best))
    return (gaps[0] ** 2 + gaps[1] ** 2) / 2


CPPO_MOST, CPPO_LEAST, CPPO_WIDTH, CPPO_HELD = 1.5, 0.5, 0.5, 0.1
"""Weights of pairs that should teach (or hold) more or less; standard deviations that part high from low; and the weight
of the term that holds."""
CPPO_ROUNDING = 0.05
"""Differences below this part nothing: at the start of a round all rewards are 0 up to rounding."""


def cppo(policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float, lengths: PairLogps) -> Tensor:
    """CPPO (Zhang et al., OpenReview 86zAUE80pP) as LifeAlign states it for pairs: a x DPO + b x knowledge retention.

    Retention is the squared difference from the reference's log-probability per token, summed over both sides. a and b
    depend on the type of a pair among those of its batch, by its reward h and the probability P of its chosen answer:
    P and h high: a and b up; one of them high, the other low: a up, b down; both low: both down; else 1.
    Types come from a batch, so that this loss, unlike the others, depends on how pairs are batched.
    """
    h = pair_logit(policy, reference, beta=beta)
    likely = _high_and_low(_per_token(policy, lengths).chosen.detach())
    rewarded = _high_and_low(h.detach())
    normal = (likely == 0) | (rewarded == 0)
    teach = torch.where(normal, 1.0, torch.where((likely > 0) | (rewarded > 0), CPPO_MOST, CPPO_LEAST))
    held = torch.where(normal, 1.0, torch.where((likely > 0) & (rewarded > 0), CPPO_MOST, CPPO_LEAST))
    mine, theirs = _per_token(policy, lengths), _per_token(reference, lengths)
    moved = (mine.chosen - theirs.chosen) ** 2 + (mine.rejected - theirs.rejected) ** 2
    return -teach * F.logsigmoid(h) + CPPO_HELD * held * moved


def kto_pair(
    policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float, lengths: PairLogps
) -> Tensor:
    """KTO (Ethayarajh et al., arXiv 2402.01306, eq. 7) of both answers: 1 - sigma(b(r_c - z)) + 1 - sigma(b(z - r_r)).

    What is good has to be above the reference point z, what is bad below it, each by itself: an answer far beyond it moves
    nothing more, which forgives labels that are wrong. z is the mean of the batch's log-ratios, not below zero and without
    gradient; the paper estimates it on answers to other prompts. Both sides weigh alike. It depends on how pairs are batched.
    """
    liked, disliked = policy.chosen - reference.chosen, policy.rejected - reference.rejected
    z = torch.cat([liked, disliked]).detach().mean().clamp(min=0)
    return (1 - (beta * (liked - z)).sigmoid()) + (1 - (beta * (z - disliked)).sigmoid())


def _high_and_low(values: Tensor) -> Tensor:
    """1 above the mean by `CPPO_WIDTH` standard deviations, -1 below it by as much, else 0."""
    off, width = values - values.mean(), (CPPO_WIDTH * values.std(correction=0)).clamp(min=CPPO_ROUNDING)
    return (off > width).float() - (off < -width).float()


def _per_token(logps: PairLogps, lengths: PairLogps) -> PairLogps:
    return PairLogps(logps.chosen / lengths.chosen.clamp(min=1), logps.rejected / lengths.rejected.clamp(min=1))


def ipo(policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float, lengths: PairLogps) -> Tensor:
    """(d - 1 / (2 beta))^2 with d the difference of *per-token* log-ratios: IPO (Azar et al., arXiv 2310.12036).

    The per-token form is the one its authors confirmed for language models. Approximate with several anchors.
    """
    d = pair_logit(_per_token(policy, lengths), _per_token(reference, lengths), beta=1.0)
    return (d - 1 / (2 * beta)) ** 2


def sigmoid_norm(
    policy: PairLogps, reference: PairLogps, *, beta: float, label_smoothing: float, lengths: PairLogps
) -> Tensor:
    """DPO on per-token log-ratios. ln 2 where they agree. Approximate with several anchors."""
    return -F.logsigmoid(pair_logit(_per_token(policy, lengths), _per_token(reference, lengths), beta=beta))


LOSSES: Mapping[str, PairLoss] = {
    "sigmoid": sigmoid,
    "hinge": hinge,
    "robust": robust,
    "exo_pair": exo_pair,
    "discopop": discopop,
    "fpo": fpo,
    "copr": copr,
    "ipo": ipo,
    "sigmoid_norm": sigmoid_norm,
    "cppo": cppo,
    "kto_pair": kto_pair,
}
"""Losses by the name a plan uses."""


def loss_named(name: str) -> PairLoss:
    """A loss of the project, or one that an installed package registers under `config.LOSSES_ELSEWHERE`.

    Raises:
        ConfigError: there is none of that name.
    """
    if name in LOSSES:
        return LOSSES[name]
    elsewhere = losses_elsewhere()
    if name not in elsewhere:
        raise ConfigError(
            f"objective.loss = '{name}': unknown; known losses: {', '.join((*LOSSES, *elsewhere))}; install the "
            "package that brings it, on every machine that trains"
        )
    return elsewhere[name].load()
