"""Norms that only matrix products read, in the precision of those products.

Under autocast a norm's output is float32, and every product that reads it converts it for itself: three times where it
goes into query, key and value, and as often on the way back. Here it is converted once, by the norm.
"""

from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from workbench.models.numerics import product_dtype


def frozen_norms(model: nn.Module) -> list[list[nn.Module]]:
    """Norms that are not trained and compute x / sqrt(mean(x^2) + eps) times a weight to the bit, by their name in a layer."""
    found: dict[str, list[nn.Module]] = defaultdict(list)
    for name, module in model.named_modules():
        if type(module).__name__.endswith("RMSNorm") and not isinstance(module, _LowNorm) and _computes_so(module):
            found[name.rpartition(".")[2]].append(module)
    return list(found.values())


@contextmanager
def shown_to_products_only(model: nn.Module, norms: Sequence[nn.Module]) -> Generator[None]:
    """Within, what these norms say is not a number, except to the linear layers it is handed to as it stands."""
    said: list[tuple[Tensor, Tensor]] = []

    def hide(_module: nn.Module, _given: Any, output: Tensor) -> Tensor:
        said.append((torch.full_like(output, torch.nan), output))
        return said[-1][0]

    def show(_module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(next((true for hidden, true in said if hidden is each), each) for each in given)

    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [norm.register_forward_hook(hide) for norm in norms]
    hooks += [module.register_forward_pre_hook(show) for module in linear]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def lower(norms: Sequence[nn.Module]) -> None:
    """Have norms answer in the precision of products; where that is their input's, nothing changes."""
    for norm in norms:
        norm.__class__ = _lowered(type(norm))


class _LowNorm(nn.Module):
    """Before the class of a norm."""

    weight: nn.Parameter
    variance_epsilon: float

    def forward(self, hidden_states: Tensor) -> Tensor:
        """The norm of each position, of the same shape."""
        low = product_dtype(hidden_states)
        if low == hidden_states.dtype or self.weight.requires_grad:
            return super().forward(hidden_states)
        return _Norm.apply(hidden_states, self.weight, self.variance_epsilon, low)


@cache
def _lowered(kind: type[nn.Module]) -> type[nn.Module]:
    return type(kind.__name__, (_LowNorm, kind), {})


def _computes_so(norm: Any) -> bool:
    weight, eps = getattr(norm, "weight", None), getattr(norm, "variance_epsilon", None)
    if not isinstance(weight, Tensor) or weight.dim() != 1 or eps is None:
        return False
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(3, len(weight), generator=draw).to(weight.device, weight.dtype)
    with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
        return torch.equal(norm(x), weight * (x * _rate(x, eps)))


def _rate(x: Tensor, eps: float) -> Tensor:
    return torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


class _Norm(Function):
    """x / sqrt(mean(x^2) + eps) times a frozen weight (RMSNorm, Zhang and Sennrich, arXiv 1910.07467, equation 4)."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        """Input, weight, eps, and the precision of the output; computed in the input's."""
        x, weight, eps, low = given
        rate = _rate(x, eps)
        unit = x * rate
        ctx.save_for_backward(unit, weight, rate)
        return (weight * unit).to(low)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of the input: of all positions what lies along a position's own direction is left out."""
        unit, weight, rate = ctx.saved_tensors
        along = gradients[0] * weight
        own = (along * unit).mean(-1, keepdim=True)
        return along.addcmul_(unit, own, value=-1).mul_(rate), None, None, None
