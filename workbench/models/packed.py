"""Frozen matrices, laid out once as the CPU multiplies them.

oneDNN, which multiplies bfloat16 on CPUs, copies a matrix into blocks for every product; with few rows that takes longer
than the product. A frozen matrix can be copied once. No bit of a product changes: shapes where one would are not laid out.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from workbench.models.free import free_memory
from workbench.models.numerics import product_dtype

ROWS = 1024
"""Of the products that blocks are chosen for; fewer or more take the same ones."""


ROOM = 0.25
"""Most of the free memory that blocks for both ways may take; those for the way there take the place of the matrices."""
PROBED, PROBED_PRODUCTS = (1, 7, 300), 2**31
"""Rows of products that are compared before matrices of a shape are laid out, few and many, for these are multiplied by other
means; and the most multiplications of one product: of a matrix as large as an LM head fewer rows are compared."""


class Matrix(Protocol):
    """A frozen matrix W, shape (out, in), ready for products in one precision, maybe with a bias."""

    def there(self, rows: Tensor) -> Tensor:
        """Rows times W^T, plus the bias; of shape (rows, in), to (rows, out)."""
        ...

    def back(self, rows: Tensor) -> Tensor:
        """Rows times W; of shape (rows, out), to (rows, in)."""
        ...


MANY, LONG = range(640, 1408), 2
"""Rows, and inputs for each output of a matrix, for which oneDNN takes as long with two threads as with one, where the CPU has
units for tiles of bfloat16 (AMX); each half of the outputs by itself takes half to three quarters of that together."""


class Plain:
    """A matrix as it lies.

    Args:
        weight: in the precision of the products.
        bias: the same, shape (out,).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def there(self, rows: Tensor) -> Tensor:
        """Rows times W^T, plus the bias."""
        if self._bias is None and _in_halves(rows, self._weight.t()):
            return _halves(rows, self._weight.t())
        return F.linear(rows, self._weight, self._bias)

    def back(self, rows: Tensor) -> Tensor:
        """Rows times W."""
        return _halves(rows, self._weight) if _in_halves(rows, self._weight) else rows @ self._weight


def _in_halves(rows: Tensor, matrix: Tensor) -> bool:
    is_long = matrix.shape[0] >= LONG * matrix.shape[1]
    on_cpu = rows.dtype == torch.bfloat16 and not rows.is_cuda
    return is_long and on_cpu and len(rows) in MANY and torch.get_num_threads() == 2


def _halves(rows: Tensor, matrix: Tensor) -> Tensor:
    found = rows.new_empty(len(rows), matrix.shape[1])
    for part, columns in zip(found.chunk(2, dim=1), matrix.chunk(2, dim=1), strict=True):
        torch.mm(rows, columns, out=part)
    return found


class Packed:
    """A matrix in blocks for the way there and, from the first time it is asked for, in others for the way back.

    Args:
        weight: bfloat16, of a shape for which `can_pack` holds.
        bias: shape (out,).
    """

    dtype = torch.bfloat16

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._bias = None if bias is None else bias.detach().to(self.dtype)
        self._there, self._back = _in_blocks(weight.detach()), None

    def there(self, rows: Tensor) -> Tensor:
        """Rows times W^T, plus the bias."""
        return _times(rows, self._there, self._bias)

    def back(self, rows: Tensor) -> Tensor:
        """Rows times W."""
        return _times(rows, self.lay_back(), None)

    def lay_back(self) -> Tensor:
        """The blocks for the way back, made now if they are not there."""
        if self._back is None:
            self._back = _in_blocks(self.dense().t().contiguous())
        return self._back

    def dense(self) -> Tensor:
        """The matrix as it lay, made anew."""
        return self._there.to_dense()

    def outline(self) -> Tensor:
        """Of the matrix's shape, precision and place, without its numbers: none of its own is one."""
        return torch.full((), torch.nan, dtype=self.dtype).expand(self._there.shape)


class FrozenLinear(nn.Linear):
    """A linear layer that is not trained; once `pack` was called its matrix lies in blocks, and nowhere else."""

    packed: Packed | None = None

    def pack(self) -> None:
        """Lay the matrix out. It is no parameter any more, and `weight` is an outline of it."""
        self.packed = Packed(self.weight, self.bias)
        del self.weight

    def unpack(self) -> None:
        """Have the matrix as a parameter again, for whoever changes it."""
        if self.packed is not None:
            weight, self.packed = self.packed.dense(), None
            self.weight = nn.Parameter(weight, requires_grad=False)

    def __getattr__(self, name: str) -> Any:
        """Asked for what is not there: so PEFT finds precision, shape and device of a matrix that lies in blocks."""
        if name == "weight" and self.packed is not None:
            return self.packed.outline()
        return super().__getattr__(name)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """The layer's output, in the precision of the product."""
        if self.packed is None:
            return super().forward(input)
        return _Product.apply(input, matrix_of(self, product_dtype(input)), product_dtype(input))


def matrix_of(layer: nn.Linear, dtype: torch.dtype) -> Matrix:
    """What a frozen layer multiplies by, in a precision."""
    packed = layer.packed if isinstance(layer, FrozenLinear) else None
    if packed is not None and packed.dtype == dtype:
        return packed
    weight = layer.weight if packed is None else packed.dense()
    return Plain(weight.to(dtype), None if layer.bias is None else layer.bias.to(dtype))


def hold_in_half(model: nn.Module, *, training: bool = False) -> None:
    """Keep the frozen matrices of a model in bfloat16, as autocast would convert them for every product.

    No product changes, and the matrices take half the memory. Where the machine multiplies them from blocks, and there
    is room, those of the shapes for which `can_pack` holds are laid out so; again no bit of a product changes. How much
    room there is may differ when a round goes on from a checkpoint: that is why, of all that is laid out, every shape was
    tried. Weights that are trained, those in four bits, embeddings and norms stay.

    Args:
        model: in evaluation or training.
        training: lay blocks for the way back, too, so that memory counted afterwards is what is left.
    """
    held: list[nn.Linear] = []
    for module in model.modules():
        laid_out = isinstance(module, FrozenLinear) and module.packed is not None
        if not isinstance(module, nn.Linear) or laid_out or module.weight.requires_grad:
            continue
        if module.weight.is_floating_point():
            module.weight = nn.Parameter(module.weight.to(torch.bfloat16), requires_grad=False)
            held.append(module)
    if not any(module.weight.is_cuda for module in held):
        _pack(held, training=training)


def _pack(layers: Sequence[nn.Linear], *, training: bool) -> None:
    known = [layer for layer in layers if type(layer) is nn.Linear or isinstance(layer, FrozenLinear)]
    if 2 * sum(layer.weight.nbytes for layer in known) > ROOM * free_memory():
        return
    for layer in known:
        if not can_pack(layer.weight.shape):
            continue
        if not isinstance(layer, FrozenLinear):
            layer.__class__ = FrozenLinear
        frozen: Any = layer
        frozen.pack()
        if training:
            frozen.packed.lay_back()


def can_pack(shape: Sequence[int]) -> bool:
    """Whether this machine multiplies bfloat16 through oneDNN, and matrices of a shape from blocks to the same bits, both ways.

    Tried once a process for each shape and number of threads: units for tiles of bfloat16 (AMX) sum long rows in another
    order from blocks, and short ones in the same.

    Args:
        shape: (out, in).
    """
    out, into = shape
    return _same_bits(out, into, torch.get_num_threads())


@cache
def _same_bits(out: int, into: int, _threads: int) -> bool:
    try:
        if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):  # noqa: SLF001
            return False
        draw = torch.Generator().manual_seed(0)
        weight = torch.randn(out, into, generator=draw, dtype=torch.bfloat16)
        plain, packed = Plain(weight, None), Packed(weight, None)
        for rows in (min(n, max(PROBED[1], PROBED_PRODUCTS // weight.numel())) for n in PROBED):
            there, back = (torch.randn(rows, size, generator=draw, dtype=torch.bfloat16) for size in (into, out))
            if not torch.equal(plain.there(there), packed.there(there)):
                return False
            if not torch.equal(plain.back(back), packed.back(back)):
                return False
    except (AttributeError, RuntimeError):  # no such operators, or not for this machine
        return False
    return True


class _Product(Function):
    """x W^T + bias, all of it frozen but x."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        x, matrix, dtype = given
        ctx.matrix, ctx.of_input = matrix, x.dtype
        with torch.autocast(x.device.type, enabled=False):
            found = matrix.there(x.to(dtype).flatten(0, -2))
        return found.unflatten(0, x.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of the input."""
        with torch.autocast(gradients[0].device.type, enabled=False):
            d_x = ctx.matrix.back(gradients[0].flatten(0, -2)).to(ctx.of_input)
        return d_x.unflatten(0, gradients[0].shape[:-1]), None, None


def _in_blocks(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)  # noqa: SLF001 - torch has no public name for it


def _times(rows: Tensor, blocks: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(rows.contiguous(), blocks, bias, "none", [], "")  # noqa: SLF001
