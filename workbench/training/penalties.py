"""Terms beside the preference loss. Each is returned; `objective` adds them up."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from workbench.config import PenaltySettings
from workbench.maths import PairLogps
from workbench.models.forward import CompletionStates, completion_states
from workbench.models.head import DirectHead
from workbench.models.kl_head import Direction, kl_to_anchors
from workbench.models.weights import Weights, speaking_as
from workbench.training.batches import PairBatch


class Pass(NamedTuple):
    """One forward pass of the policy in training.

    Attributes:
        policy: log-probs of its pairs, shape (pairs,), with gradient.
        states: what predicts each token of their answers, chosen ones first.
        beta: of the preference loss.
    """

    model: Any
    batch: PairBatch
    policy: PairLogps
    states: CompletionStates
    beta: float


class Penalty(Protocol):
    """A term of the objective."""

    def __call__(self, given: Pass) -> Tensor:
        """Scalar with gradient: a mean over pairs, so that a batch may be split, times its weight."""
        ...


def hold(weight: float) -> Penalty:
    """Mean of max(0, logit of the start - logit)^2 over pairs, zero for new ones: what was learned may grow, not fall.

    The reference is in both logits and cancels: the difference is beta (D_start - D). Without the maximum this is dark
    experience replay (arXiv 2004.07211) on the logit of a pair.
    """

    def penalty(given: Pass) -> Tensor:
        lost = torch.relu(given.beta * (given.batch.start_margin.to(given.policy.margin) - given.policy.margin))
        return weight * (lost**2 * given.batch.old).mean()

    return penalty


class KlToAnchors:
    """KL to the anchors at the answers of the pairs, exact over the vocabulary, nats per token.

    Mean over pairs of the mean over a pair's tokens, each pair with the anchors' weights for it. Old and new pairs weigh
    differently. The answers are the data's, not the policy's own samples.

    Args:
        anchors: weights of each anchor in place of the model's.
        settings: weights, direction, and the budget that steers them.
    """

    def __init__(self, anchors: Sequence[Weights], settings: PenaltySettings) -> None:
        self._anchors, self._settings = anchors, settings
        self.steer = 1.0
        self._seen: list[tuple[float, int]] = []

    def __call__(self, given: Pass) -> Tensor:
        """The penalty of one pass."""
        per_pair = self.per_pair(given)
        self._seen.append((float(per_pair.detach().sum()), len(per_pair)))
        s = self._settings
        return self.steer * (torch.where(given.batch.old, s.kl_old, s.kl_new) * per_pair).mean()

    def per_pair(self, given: Pass) -> Tensor:
        """Weighted KL of each pair, nats per token, shape (pairs,)."""
        rows, batch = given.batch.rows, given.batch
        pairs = len(batch.weights)
        pair = rows.example % pairs
        used = [k for k in range(len(self._anchors)) if bool((batch.anchors[:, k] > 0).any())]
        direction: Direction = self._settings.kl_direction
        per_token = kl_to_anchors(
            given.states,
            [self._states(given, self._anchors[k]) for k in used],
            batch.anchors[:, used][pair],
            direction=direction,
        )
        tokens = batch.lengths.chosen + batch.lengths.rejected
        return per_token.new_zeros(pairs).index_add(0, pair.to(per_token.device), per_token) / tokens

    def after_step(self) -> None:
        """Steer towards the budget: up to a tenth more or less weight after each optimizer step (arXiv 1909.08593)."""
        seen, self._seen = self._seen, []
        if self._settings.kl_budget and seen:
            measured = math.fsum(nats for nats, _ in seen) / sum(pairs for _, pairs in seen)
            error = max(-MOST_ERROR, min(MOST_ERROR, measured / self._settings.kl_budget - 1))
            self.steer *= 1 + error * GAIN

    def _states(self, given: Pass, anchor: Weights) -> Tensor:
        with speaking_as(given.model, anchor):
            found = completion_states(given.model, given.batch.rows)
            frozen = not any(p.requires_grad for p in found.head.parameters())
            return found.states if isinstance(found.head, DirectHead) and frozen else found.head(found.states)


MOST_ERROR, GAIN = 0.2, 0.5
"""The relative error that steering reacts to at most, and how strongly."""


def near(start: Weights, importance: Mapping[str, Tensor], weight: float) -> Penalty:
    """Weight / 2 sum_i F_i (theta_i - start_i)^2: EWC (Kirkpatrick et al., arXiv 1612.00796, eq. 3)."""

    def penalty(given: Pass) -> Tensor:
        parameters = dict(given.model.named_parameters())
        parts = [(importance[name] * (parameters[name] - at) ** 2).sum() for name, at in start.items()]
        return weight / 2 * torch.stack(parts).sum()

    return penalty


def fisher(model: Any, passes: Sequence[Any], margin: Callable[[Any], Tensor], *, beta: float) -> Weights:
    """Diagonal Fisher information of preferences at the model's weights, averaged over pairs.

    A preference is a Bernoulli variable with logit beta (D - D_reference). Where the model is its own reference the logit
    is 0 and the information is beta^2 / 4 (dD/dtheta)^2: no label enters.

    Args:
        model: in training, at the weights asked about.
        passes: one pair each.
        margin: D of one pass, with gradient, shape (1,).
        beta: of the preference loss.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for each in passes:
        gradients = torch.autograd.grad(margin(each).sum(), list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                found[name] += beta**2 / 4 * gradient.detach() ** 2 / len(passes)
    return found
