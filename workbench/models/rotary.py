"""Rotary positions in the precision of products.

Under autocast a model turns its bfloat16 queries and keys in float32, in passes over copies of them, and attention rounds
them to bfloat16 again. Here they are turned in float32 and rounded at once, and so is their gradient on the way back.
"""

from functools import cache, partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from workbench.models.numerics import product_dtype

NAME = "apply_rotary_pos_emb"
"""What the attention of an architecture in transformers calls the function of its module that turns queries and keys."""


def use_own_rotation(model: nn.Module) -> None:
    """Have attention layers turn queries and keys so, where the function they call now computes the same."""
    for module in model.modules():
        if own := _turning(type(module)):
            module.__class__ = own


@cache
def _turning(kind: type[nn.Module]) -> type[nn.Module] | None:
    """A class of layers whose `forward` finds our function by the name of theirs; no other model's sees it."""
    forward = kind.forward
    if not isinstance(forward, FunctionType) or NAME not in forward.__code__.co_names:
        return None
    theirs = forward.__globals__.get(NAME)
    if isinstance(theirs, partial) or not _turns_halves(theirs):
        return None
    names = {**forward.__globals__, NAME: partial(_turned, theirs)}
    own = FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__)
    own.__kwdefaults__ = forward.__kwdefaults__
    return type(kind.__name__, (kind,), {"forward": own})


def _turned(theirs: Any, *given: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
    """Query and key, each (rows, heads, length, size), turned by cos and sin, each (rows, length, size)."""
    if more or len(given) != 4 or not _is_rounded_afterwards(*given):
        return theirs(*given, **more)
    query, key, cos, sin = given
    return _Turn.apply(query, cos, sin), _Turn.apply(key, cos, sin)


def _is_rounded_afterwards(query: Tensor, key: Tensor, cos: Tensor, _sin: Tensor) -> bool:
    """Whether attention would round what comes out back to what goes in."""
    return query.dtype == key.dtype == product_dtype(query) != cos.dtype


def _turns_halves(theirs: Any) -> bool:
    draw = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, heads, 3, 8, generator=draw, dtype=torch.float64) for heads in (4, 2))
    cos, sin = (torch.randn(2, 3, 8, generator=draw, dtype=torch.float64) for _ in range(2))
    try:
        found = theirs(query, key, cos, sin)
        return all(torch.allclose(a, _turn(b, cos, sin)) for a, b in zip(found, (query, key), strict=True))
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False


class _Turn(Function):
    """Each pair of numbers half a head apart, turned (RoPE, Su et al., arXiv 2104.09864)."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        """Queries or keys, cos and sin; computed in the precision of these, answered in that of the former."""
        x, cos, sin = given
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of queries or keys: turned the other way."""
        cos, sin = ctx.saved_tensors
        return _turn(gradients[0], cos, -sin.roll(sin.shape[-1] // 2, -1)).to(gradients[0].dtype), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """X of shape (rows, heads, length, size), in the wider precision; its heads lie together, as a layer's products leave them."""
    half = x.shape[-1] // 2
    rows = x.transpose(1, 2).to(
        torch.promote_types(x.dtype, cos.dtype)
    )  # operators on two precisions take twice as long
    cos, sin = cos[:, :, None], sin[:, :, None]
    found = rows * cos
    found[..., :half].addcmul_(rows[..., half:], sin[..., :half], value=-1)
    found[..., half:].addcmul_(rows[..., :half], sin[..., half:])
    return found.transpose(1, 2)
