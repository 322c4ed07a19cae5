"""Terms beside the preference loss. Each is returned; `objective` adds them up."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from workbench.maths import PairLogps
from workbench.models.forward import CompletionStates, Rows, completion_states
from workbench.models.head import DirectHead
from workbench.models.kl_head import Direction, kl_to_anchors
from workbench.models.weights import Weights, speaking_as
from workbench.training.batches import PairBatch
from workbench.training.carried import Steering


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
    """KL to frozen policies at the answers of the pairs, exact over the vocabulary, nats per token.

    Mean over pairs of the mean over a pair's tokens. The answers are the data's, not the policy's own samples.

    Args:
        anchors: weights of each policy in place of the model's.
        shares: of each policy for each pair of a batch, shape (pairs, anchors).
        weights: of new and of old pairs.
        direction: which of the two policies comes first.
        steering: changes the weights from step to step.
    """

    def __init__(
        self,
        anchors: Sequence[Weights],
        shares: Callable[[PairBatch], Tensor],
        *,
        weights: tuple[float, float],
        direction: Direction,
        steering: Steering,
    ) -> None:
        self._anchors, self._shares, self._weights = anchors, shares, weights
        self._direction: Direction = direction
        self.steering = steering

    def __call__(self, given: Pass) -> Tensor:
        """The penalty of one pass."""
        per_pair = self.per_pair(given)
        new, old = self._weights
        weights = torch.where(given.batch.old, old, new).to(per_pair)
        self.steering.saw(float(per_pair.detach()[weights > 0].sum()), int((weights > 0).sum()))
        return self.steering.weight * (weights * per_pair).mean()

    def per_pair(self, given: Pass) -> Tensor:
        """Weighted KL of each pair, nats per token, shape (pairs,)."""
        rows, batch, shares = given.batch.rows, given.batch, self._shares(given.batch)
        pairs = len(batch.weights)
        pair = rows.example % pairs
        used = [k for k in range(len(self._anchors)) if bool((shares[:, k] > 0).any())]
        per_token = kl_to_anchors(
            given.states,
            [states_under(self._anchors[k], given.model, given.batch.rows) for k in used],
            shares[:, used][pair],
            direction=self._direction,
        )
        tokens = batch.lengths.chosen + batch.lengths.rejected
        return per_token.new_zeros(pairs).index_add(0, pair.to(per_token.device), per_token) / tokens


def states_under(anchor: Weights, model: Any, rows: Rows) -> Tensor:
    """What `kl_to_anchors` takes of an anchor: its states, or its logits where its head is not the policy's."""
    with speaking_as(model, anchor):
        found = completion_states(model, rows)
        frozen = not any(p.requires_grad for p in found.head.parameters())
        return found.states if isinstance(found.head, DirectHead) and frozen else found.head(found.states)


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
