"""The objective of a round: named parts, summed in one place."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.config import ObjectiveSettings
from workbench.maths import PairLogps, kto, kto_logit, loss_named


class Parts(NamedTuple):
    """Total and what it is made of.

    Attributes:
        total: scalar with gradient; the sum of the parts.
        parts: by name, scalars without gradient.
    """

    total: Tensor
    parts: dict[str, Tensor]


def objective(
    policy: PairLogps,
    reference: PairLogps,
    *,
    lengths: PairLogps,
    weights: Tensor,
    good: Tensor,
    settings: ObjectiveSettings,
    penalties: Mapping[str, Tensor] = MappingProxyType({}),
) -> Parts:
    """Weighted preference loss of one batch, and what is added to it.

    The mean is over pairs, not over the sum of weights, so that splitting a batch changes nothing.

    Args:
        policy: log-probs under the policy being trained, shape (pairs,).
        reference: log-probs under the geometric reference, shape (pairs,).
        lengths: completion lengths in tokens, shape (pairs,).
        weights: how much each pair counts, shape (pairs,).
        good: whether each chosen answer is good, where answers stand by themselves, beside one that belongs to another prompt.
        settings: which loss, beta and smoothing.
        penalties: further terms by name, scalars.
    """
    if settings.of_answers:
        ratios, elsewhere = _ratios(policy, reference)
        weighed = {"good_weight": settings.kto_good, "bad_weight": settings.kto_bad}
        per_pair = kto(ratios, elsewhere, good, beta=settings.beta, **weighed)
    else:
        per_pair = loss_named(settings.loss)(
            policy, reference, beta=settings.beta, label_smoothing=settings.label_smoothing, lengths=lengths
        )
    parts = {"preference": (weights * per_pair).mean(), **penalties}
    return Parts(torch.stack(list(parts.values())).sum(), {name: p.detach() for name, p in parts.items()})


def logit(policy: PairLogps, reference: PairLogps, *, good: Tensor, settings: ObjectiveSettings) -> Tensor:
    """How far each pair, or each answer by itself, is on its right side, shape (pairs,); arguments as of `objective`."""
    if settings.of_answers:
        return kto_logit(*_ratios(policy, reference), good, beta=settings.beta)
    return settings.beta * (policy.margin - reference.margin)


def _ratios(policy: PairLogps, reference: PairLogps) -> tuple[Tensor, Tensor]:
    """Log-ratios of the answers, and of those that belong to other prompts."""
    return policy.chosen - reference.chosen, policy.rejected - reference.rejected
