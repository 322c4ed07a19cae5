"""RMS norms of a model's layers as one function with a way back of its own.

As transformers write them a norm makes six copies of its input and keeps three for the way back, and every layer that
reads its output converts it again. Here one number a position is kept, and the output is in the precision of the products.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from workbench.models.numerics import product_dtype

EPSILONS = ("variance_epsilon", "eps")
"""What models call the number below the root."""


def use_own_norms(model: nn.Module) -> None:
    """Have the RMS norms inside a model's layers computed here, if they compute the same.

    The norm after the last layer stays: its output is read as it is. So do those that scale otherwise.
    """
    for name, module in model.named_modules():
        inside = any(part.isdigit() for part in name.split("."))
        if inside and type(module).__name__.endswith("RMSNorm") and _computes_the_same(module):
            module.__class__ = _own_kind(type(module))


def _computes_the_same(module: nn.Module) -> bool:
    weight, epsilon = getattr(module, "weight", None), _epsilon(module)
    if not isinstance(weight, Tensor) or weight.dim() != 1 or epsilon is None:
        return False
    # Of any size: how the number below the root is used shows on small ones.
    sizes = torch.logspace(-6, 2, 9).to(weight)[:, None]
    probe = sizes * torch.linspace(-1, 2, len(weight)).to(weight)
    with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
        return torch.allclose(module(probe), _Norm.apply(probe, weight, epsilon, probe.dtype), rtol=1e-4, atol=1e-6)


def _epsilon(module: nn.Module) -> float | None:
    return next((float(found) for name in EPSILONS if (found := getattr(module, name, None)) is not None), None)


def _own_kind(kind: type[nn.Module]) -> type[nn.Module]:
    """The kind of norm with another `forward`; what asks for its class still finds it."""

    def forward(self: Any, *given: Tensor) -> Tensor:
        states = given[0]
        trained = self.weight.requires_grad and torch.is_grad_enabled()
        if len(given) > 1 or trained or states.dtype != self.weight.dtype:
            return kind.forward(self, *given)
        return _Norm.apply(states, self.weight, _epsilon(self), product_dtype(states))

    return type(kind.__name__, (kind,), {"forward": forward})


class _Norm(Function):
    """w x / sqrt(mean x^2 + epsilon) (Zhang and Sennrich, arXiv 1910.07467, equation 4), w frozen."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        """States of shape (…, size), weight, epsilon, and the precision wanted."""
        states, weight, epsilon, wanted = given
        scale = torch.linalg.vector_norm(states, dim=-1, keepdim=True).square_().div_(states.shape[-1])
        scale.add_(epsilon).rsqrt_()
        ctx.save_for_backward(states, scale, weight)
        return (states * scale).mul_(weight).to(wanted)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """With r the scale: r (w d - x r^2 mean(w d x)), d the gradient of the output."""
        states, scale, weight = ctx.saved_tensors
        weighted = gradients[0].to(states.dtype) * weight
        mean = (weighted * states).sum(dim=-1, keepdim=True).mul_(scale.square()).div_(states.shape[-1])
        return weighted.addcmul_(states, mean, value=-1).mul_(scale), None, None, None
