"""A linear layer with its LoRA adapter as one product.

PEFT adds the adapter's part with passes of its own over the layer's output, each time in the adapter's precision. Here
it is added inside the product (`addmm`), and what is needed on the way back is kept in the precision of the product.
"""

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from workbench.models.numerics import product_dtype
from workbench.models.packed import FrozenLinear, matrix_of


def use_one_product(model: Any) -> None:
    """Have every adapted linear layer of a model compute so where it can; the rest stays PEFT's."""
    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = AdaptedLinear


class AdaptedLinear(Linear):
    """PEFT's layer; with one active adapter, without dropout, over frozen weights of its own kind one product."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The layer's output; `x` of shape (…, in features)."""
        name = self.active_adapters[0] if len(self.active_adapters) == 1 else None
        if args or kwargs or name is None or not self._is_plain(name):
            return super().forward(x, *args, **kwargs)
        base: Any = self.base_layer
        matrix = matrix_of(base, product_dtype(x))
        return _Adapted.apply(x, matrix, self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name])

    def merge(self, *args: Any, **kwargs: Any) -> None:
        """PEFT's, into a matrix that is a parameter."""
        base: Any = self.base_layer
        if isinstance(base, FrozenLinear):
            base.unpack()
        super().merge(*args, **kwargs)

    def _is_plain(self, name: str) -> bool:
        a, b, base = self.lora_A, self.lora_B, self.base_layer
        return (
            name in a
            and not (self.disable_adapters or self.merged or self.fan_in_fan_out or name in self.lora_variant)
            and type(base) in {torch.nn.Linear, FrozenLinear}
            and not any(parameter.requires_grad for parameter in base.parameters())
            and isinstance(self.lora_dropout[name], torch.nn.Identity)
            and a[name].bias is None
            and b[name].bias is None
        )


class _Adapted(Function):
    """x W^T + bias + scale (x A^T) B^T (LoRA, Hu et al., arXiv 2106.09685, equation 3), W and bias frozen."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        """Input, frozen matrix, A, B and scale; under autocast products are in its precision."""
        x, base, a, b, scale = given
        low = product_dtype(x)
        with torch.autocast(x.device.type, enabled=False):
            rows, a, scaled = x.to(low).flatten(0, -2), a.to(low), (b * scale).to(low)
            inner = rows @ a.t()
            found = base.there(rows).addmm_(inner, scaled.t())
        ctx.save_for_backward(rows, a, scaled, inner)
        ctx.base, ctx.scale, ctx.given = base, scale, (x.dtype, b.dtype)
        return found.unflatten(0, x.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of input, A and B."""
        rows, a, scaled, inner = ctx.saved_tensors
        of_input, of_adapter = ctx.given
        gradient = gradients[0].flatten(0, -2)
        with torch.autocast(rows.device.type, enabled=False):
            through = gradient @ scaled
            d_a = through.t() @ rows
            d_b = (gradient.t() @ inner).to(of_adapter) * ctx.scale
            d_x = None
            if ctx.needs_input_grad[0]:
                d_x = ctx.base.back(gradient).addmm_(through, a).to(of_input).unflatten(0, gradients[0].shape[:-1])
        return d_x, None, d_a.to(of_adapter), d_b, None
