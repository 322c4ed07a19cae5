"""The objective of a round: named parts, summed in one place."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.config import ObjectiveSettings
from workbench.maths import PairLogps, loss_named


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
        settings: which loss, beta and smoothing.
        penalties: further terms by name, scalars.
    """
    per_pair = loss_named(settings.loss)(
        policy, reference, beta=settings.beta, label_smoothing=settings.label_smoothing, lengths=lengths
    )
    parts = {"preference": (weights * per_pair).mean(), **penalties}
    return Parts(torch.stack(list(parts.values())).sum(), {name: p.detach() for name, p in parts.items()})
