"""Log-probabilities of tokens from hidden states, a few at a time: the logits of all never lie in memory at once.

A vocabulary of 50,000 words makes a position's logits a hundred times as large as its hidden state.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from workbench.models.numerics import product_dtype
from workbench.models.packed import FrozenLinear, matrix_of

CHUNK = 128
"""Positions whose logits are computed at once: 25 MB in float32 at 50,000 words, which a process keeps when freed."""


class DirectHead(FrozenLinear):
    """A LM head whose output is the model's logits as it stands: nothing scales or caps it afterwards."""


class Seen(NamedTuple):
    """What is told of the distributions that predict tokens, filled in while their logits are there; shape (tokens,).

    Attributes:
        entropy: nats.
        likeliest: 1 where the target is the likeliest token.
    """

    entropy: Tensor
    likeliest: Tensor

    @classmethod
    def of(cls, tokens: int, device: torch.device | None = None) -> "Seen":
        """Of so many tokens, nothing yet."""
        return cls(torch.zeros(tokens, device=device), torch.zeros(tokens, device=device))

    def chunks(self) -> list["Seen"]:
        """The same places, a few at a time."""
        return [Seen(*each) for each in zip(self.entropy.split(CHUNK), self.likeliest.split(CHUNK), strict=True)]

    def note(self, shares: Tensor, targets: Tensor) -> None:
        """Look at the probabilities of all tokens, without gradient, shape (tokens, vocabulary)."""
        self.entropy.copy_(torch.special.entr(shares).sum(dim=-1))
        self.likeliest.copy_(shares.argmax(dim=-1) == targets)

    @torch.no_grad()
    def note_logits(self, logits: Tensor, targets: Tensor) -> None:
        """The same of logits, a few at a time."""
        for some, t, part in zip(logits.split(CHUNK), targets.split(CHUNK), self.chunks(), strict=True):
            part.note(some.softmax(dim=-1, dtype=torch.promote_types(some.dtype, torch.float32)), t)


def token_logps(head: DirectHead, hidden: Tensor, targets: Tensor, seen: Seen | None = None) -> Tensor:
    """Log-probability of each target, nats, float32 at least; shape (tokens,).

    Under a frozen head the gradient for a hidden state is known, up to its factor, once the logits are: it is kept in
    their place, and nothing is computed twice. Under a head in training chunks are computed again on the way back.

    Args:
        head: from `use_direct_head`.
        hidden: what predicts each target, shape (tokens, size).
        targets: token ids, shape (tokens,).
        seen: is told of the distributions, where somebody wants to know.
    """
    way_back = torch.is_grad_enabled()
    if not way_back or not any(parameter.requires_grad for parameter in head.parameters()):
        return _Frozen.apply(hidden, matrix_of(head, product_dtype(hidden)), targets, way_back, seen)
    parts = zip(hidden.split(CHUNK), targets.split(CHUNK), _parts(seen, hidden), strict=True)
    found: Any = [checkpoint(_plain, head, h, t, part, use_reentrant=False) for h, t, part in parts]
    return torch.cat(found)


def _parts(seen: Seen | None, hidden: Tensor) -> list[Seen] | list[None]:
    return seen.chunks() if seen else [None] * len(hidden.split(CHUNK))


def _plain(head: DirectHead, hidden: Tensor, targets: Tensor, seen: Seen | None) -> Tensor:
    logits = head(hidden)
    if seen:  # on the way back once more, with the same result
        seen.note_logits(logits, targets)
    return -F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), targets, reduction="none")


class _Frozen(Function):
    """log softmax(h W^T + b) at the target; its gradient for h is W[target] minus the expected row of W."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        """Hidden states, the head's matrix, targets, whether a gradient is wanted, what is told; products in autocast's precision."""
        hidden, matrix, targets, wanted, seen = given
        low = product_dtype(hidden)
        found: list[Tensor] = []
        slopes: list[Tensor] = []
        with torch.autocast(hidden.device.type, enabled=False):
            chunks = zip(hidden.to(low).split(CHUNK), targets.split(CHUNK), _parts(seen, hidden), strict=True)
            for h, t, part in chunks:
                logits = matrix.there(h)
                shares = logits.softmax(dim=-1, dtype=torch.promote_types(low, torch.float32))
                if part:
                    part.note(shares, t)
                # From the likeliest token, whose share is no rounding: the target's may be zero.
                top, place = logits.max(dim=-1, keepdim=True)
                logps = logits.gather(1, t[:, None]) - top.to(shares.dtype) + shares.gather(1, place).log()
                found.append(logps[:, 0])
                if wanted:
                    # One is taken away before rounding: what is left of a likely token's probability is small.
                    shares.scatter_add_(1, t[:, None], shares.new_full((len(t), 1), -1.0))
                    slopes.append(matrix.back(shares.to(low)))
        if wanted:
            ctx.save_for_backward(torch.cat(slopes))
            ctx.dtype = hidden.dtype
        return torch.cat(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient for the hidden states."""
        (slopes,) = ctx.saved_tensors
        return (slopes * -gradients[0][:, None]).to(ctx.dtype), None, None, None, None
