"""KL between a policy and its anchors at given positions.

From hidden states, a few at a time, so that all logits never lie in memory at once. Where the head is trained, or cannot be
called by itself, those of the anchors do.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, linalg
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from workbench.models.forward import CompletionStates
from workbench.models.head import CHUNK, DirectHead
from workbench.models.numerics import product_dtype
from workbench.models.packed import matrix_of

Direction = Literal["reverse", "forward"]
"""KL(policy || anchor), or KL(anchor || policy)."""


def kl_to_anchors(
    policy: CompletionStates, anchors: Sequence[Tensor], weights: Tensor, *, direction: Direction
) -> Tensor:
    """Weighted sum of the KLs to some anchors, exact over the vocabulary, nats at each position; shape (tokens,).

    Gradients go to the policy. Under a frozen head its gradient for a hidden state is kept, as in `head.token_logps`;
    else a chunk is computed again on the way back.

    Args:
        policy: states with a gradient, and the head of policy and anchors.
        anchors: states of each anchor, shape (tokens, size); where the head is no part of the states, logits.
        weights: of each anchor at each position, shape (tokens, anchors).
        direction: which of the two is first.
    """
    head, reverse = policy.head, direction == "reverse"
    frozen = not any(p.requires_grad for p in head.parameters())
    if isinstance(head, DirectHead) and frozen:
        matrix = matrix_of(head, product_dtype(policy.states))
        return _Frozen.apply(policy.states, matrix, weights, reverse, torch.is_grad_enabled(), *anchors)
    parts = zip(policy.states.split(CHUNK), weights.split(CHUNK), *(a.split(CHUNK) for a in anchors), strict=True)
    found: Any = [checkpoint(_plain, head, reverse, *part, use_reentrant=False) for part in parts]
    return torch.cat(found)


def _plain(head: torch.nn.Module, reverse: bool, states: Tensor, weights: Tensor, *anchors: Tensor) -> Tensor:  # noqa: FBT001
    mine = head(states)
    p = mine.to(torch.promote_types(mine.dtype, torch.float32)).log_softmax(-1)
    # Anchors come as logits here: a head in training is not theirs.
    kls = [_kl(p, a.to(p.dtype).log_softmax(-1), reverse=reverse) for a in anchors]
    return (torch.stack(kls, -1) * weights).sum(-1)


def _kl(p: Tensor, q: Tensor, *, reverse: bool) -> Tensor:
    return (p.exp() * (p - q)).sum(-1) if reverse else (q.exp() * (q - p)).sum(-1)


class _Frozen(Function):
    """KL to anchors under a frozen head, with its gradient for the policy's states.

    With p the policy, q_k the anchors, w_k their weights, W = sum_k w_k and g = W log p - sum_k w_k log q_k, reverse KL
    is f = sum p g with the gradient p (g - f) for the logits; forward KL has W p - sum_k w_k q_k.
    """

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        """States, the head's matrix, weights, direction, whether a gradient is wanted, states of anchors."""
        states, matrix, weights, reverse, wanted, *anchors = given
        low = product_dtype(states)
        found: list[Tensor] = []
        slopes: list[Tensor] = []
        with torch.autocast(states.device.type, enabled=False):

            def logs(part: Tensor) -> Tensor:
                return matrix.there(part.to(low)).log_softmax(-1, dtype=torch.promote_types(low, torch.float32))

            for start in range(0, len(states), CHUNK):
                chunk = slice(start, start + CHUNK)
                others = (logs(a[chunk]) for a in anchors)
                value, slope = _value_and_slope(logs(states[chunk]), others, weights[chunk], reverse=reverse)
                found.append(value)
                if wanted:
                    slopes.append(matrix.back(slope.to(low)))
        if wanted:
            ctx.save_for_backward(torch.cat(slopes))
            ctx.dtype, ctx.others = states.dtype, len(given) - 1
        return torch.cat(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient for the policy's states."""
        (slopes,) = ctx.saved_tensors
        return ((slopes * gradients[0][:, None]).to(ctx.dtype), *[None] * ctx.others)


def _value_and_slope(p: Tensor, qs: Iterable[Tensor], weights: Tensor, *, reverse: bool) -> tuple[Tensor, Tensor]:
    """The weighted KL at each position and its gradient for the policy's logits, from log-probabilities.

    Arrays of the vocabulary's size are what this costs: what is given is used up, and one anchor's lies in memory at a
    time.
    """
    weights = weights.to(p.dtype)
    total, columns = weights.sum(1, keepdim=True), weights.unsqueeze(-1).unbind(1)
    probabilities = p.exp()
    if reverse:
        g = p.mul_(total)
        for q, w in zip(qs, columns, strict=True):
            g.addcmul_(q, w, value=-1)
        value = linalg.vecdot(probabilities, g)
        return value, g.sub_(value[:, None]).mul_(probabilities)
    value, slope = p.new_zeros(len(p)), probabilities.mul_(total)
    for q, w in zip(qs, columns, strict=True):
        shares = q.exp()
        value.add_(linalg.vecdot(shares, q.sub_(p)) * w[:, 0])
        slope.addcmul_(shares, w, value=-1)
    return value, slope
