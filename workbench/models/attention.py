"""Attention over a packed row: many prompts with their completions in one row, without padding and without waste.

A dense mask over such a row would cost the square of its length. Here each piece is computed against what it sees and
nothing else: a prompt against itself, a completion against its prompt and itself. The pieces travel in the place of the
mask, which every architecture hands on unchanged where it has four dimensions.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PIECES = "pieces"
"""The attention's name among those of transformers."""

NOT_OURS = ("sliding_window", "softcap", "position_bias", "s_aux")
"""Arguments of attention that depend on distances or change the softmax."""


def use_pieces(model: Any) -> bool:
    """Have a model compute packed rows piece by piece; everything else as it did. False where it cannot."""
    if not getattr(model, "_supports_attention_backend", False):
        return False
    model.set_attn_implementation(PIECES)
    return True


def pieces(spans: list[tuple[int, int, int, int]]) -> Tensor:
    """What a packed row consists of, as `attend` takes it in the place of a mask.

    Args:
        spans: for each piece where it starts and ends, and where the prompt it follows starts and ends (twice the same
            place for a prompt itself); one after the other, covering the row.

    Returns:
        Shape (1, 1, pieces, 4).
    """
    return torch.tensor(spans)[None, None]


def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **given: Any) -> tuple[Tensor, None]:
    """Attention as transformers calls it; by pieces where the mask holds them.

    Args:
        module: the layer.
        query: shape (1, heads, length, size).
        key: shape (1, key heads, length, size).
        value: the same.
        rest: the mask: from `pieces`, or any other of `sdpa`.
        given: the mask, if not in `rest`; scaling, and what else the model passes.

    Returns:
        Shape (1, length, heads, size), and no attention weights.

    Raises:
        ValueError: the model wants what cannot be computed by pieces.
    """
    mask: Tensor | None = rest[0] if rest else given.pop("attention_mask")
    if mask is None or mask.dtype != torch.long:
        return sdpa_attention_forward(module, query, key, value, mask, **given)
    if asked := [name for name in NOT_OURS if given.get(name) is not None]:
        raise ValueError(f"attention by pieces has no {', '.join(asked)}")
    scale = given.get("scaling") or query.shape[-1] ** -0.5
    spans = mask[0, 0].tolist()
    if torch.is_grad_enabled():
        return _Packed.apply(query, key, value, spans, scale), None
    groups = query.shape[1] // key.shape[1]
    heads = _Heads(query, repeat_kv(key, groups), repeat_kv(value, groups), scale)
    return torch.cat([_piece(heads, span) for span in spans], dim=2).transpose(1, 2), None


class _Heads(NamedTuple):
    """What attention is computed from, each of shape (1, heads, length, size), and by what products are multiplied."""

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float


def _piece(heads: _Heads, span: Sequence[int]) -> Tensor:
    """Attention of one piece without gradients, by torch's own kernel."""
    start, end, prompt, border = span
    q, k, v = (each[:, :, start:end] for each in heads[:3])
    if prompt == border:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=heads.scale)
    k = torch.cat([heads.key[:, :, prompt:border], k], dim=2)
    v = torch.cat([heads.value[:, :, prompt:border], v], dim=2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=_after(q.shape[2], k.shape[2]), scale=heads.scale)


KEPT = 400 * 400
"""Largest piece, in pairs of tokens, whose attention is kept for the way back: 3 MB a layer for 9 heads in bfloat16.
Longer ones are computed again there, as torch's kernel does for all; they would need too much memory."""

ROWS = 256
"""Most positions whose attention is computed at once. What comes after them is not computed at all."""


class _Block(NamedTuple):
    """Positions `first` to `last` of a piece that starts at `start` and follows the prompt from `prompt` to `border`."""

    first: int
    last: int
    start: int
    prompt: int
    border: int
    kept: bool

    def seen(self, each: Tensor) -> Tensor:
        """Keys or values that the last of the positions sees; shape (key heads, seen, size)."""
        own = each[:, self.start : self.last]
        return own if self.prompt == self.border else torch.cat([each[:, self.prompt : self.border], own], dim=1)

    def add(self, gradient: Tensor, to: Tensor) -> None:
        """Add the gradient of what is seen, in the layout of `seen`, to that of the row."""
        length = self.border - self.prompt
        to[:, self.prompt : self.border] += gradient[:, :length]
        to[:, self.start : self.last] += gradient[:, length:]


def _blocks(spans: Sequence[Sequence[int]]) -> Iterator[_Block]:
    for start, end, prompt, border in spans:
        seen = border - prompt + end - start
        rows = max(1, min(ROWS, KEPT // seen))
        for first in range(start, end, rows):
            kept = (end - start) * seen <= KEPT
            yield _Block(first, min(first + rows, end), start, prompt, border, kept)


class _Packed(Function):
    """Attention over a packed row, with its way back.

    Key heads are multiplied with all their query heads at once, gradients are added in place, and products are in the
    values' precision (bfloat16 under autocast), except those before the softmax, which are in float32 at least.
    """

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        """Query, key and value as in `attend`, the pieces, and by what products are multiplied."""
        query, key, value, spans, scale = given
        blocks = list(_blocks(spans))
        _, heads, length, size = query.shape
        groups = key.shape[1]
        found = value.new_empty(length, groups, heads // groups, size)
        shares: list[Tensor] = []
        with torch.autocast(query.device.type, enabled=False):
            for block in blocks:
                share = _shares(query, key, block, scale).to(value.dtype)
                attended = torch.bmm(share, block.seen(value[0]))
                found[block.first : block.last] = attended.view(groups, heads // groups, -1, size).permute(2, 0, 1, 3)
                shares += [share] * block.kept
        ctx.save_for_backward(query, key, value, *shares)
        ctx.blocks, ctx.scale = blocks, scale
        return found.view(1, length, heads, size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of what `forward` was given."""
        query, key, value, *kept = ctx.saved_tensors
        _, heads, length, size = query.shape
        groups, low = key.shape[1], value.dtype
        given = gradients[0].view(length, groups, heads // groups, size)
        d_query = query.new_empty(groups, heads // groups, length, size)
        d_key, d_value = torch.zeros_like(key[0]), torch.zeros_like(value[0], dtype=key.dtype)
        shares = iter(kept)
        with torch.autocast(query.device.type, enabled=False):
            for block in ctx.blocks:
                share = next(shares) if block.kept else _shares(query, key, block, ctx.scale).to(low)
                back = given[block.first : block.last].permute(1, 2, 0, 3).reshape(groups, -1, size)
                block.add(torch.bmm(share.transpose(1, 2), back), to=d_value)
                through = torch.bmm(back, block.seen(value[0]).transpose(1, 2))
                products = _softmax_back(through, share, -1, low)
                d_query[:, :, block.first : block.last] = torch.bmm(products, block.seen(key[0]).to(low)).view(
                    groups, heads // groups, -1, size
                )
                block.add(
                    torch.bmm(products.transpose(1, 2), _asking(query, groups, block, ctx.scale).to(low)), to=d_key
                )
        d_query.mul_(ctx.scale)
        return d_query.view(query.shape), d_key[None], d_value.to(low)[None], None, None


_softmax_back: Any = torch.ops.aten._softmax_backward_data  # noqa: SLF001 - torch has no public name for it
"""In float32 inside, whatever it is given."""


def _asking(query: Tensor, groups: int, block: _Block, scale: float) -> Tensor:
    """Queries of a block by the key head they ask, scaled; shape (key heads, heads per key head x positions, size)."""
    asking = query[0].unflatten(0, (groups, -1))[:, :, block.first : block.last]
    return (asking * scale).flatten(1, 2)


def _shares(query: Tensor, key: Tensor, block: _Block, scale: float) -> Tensor:
    """What each position of a block takes from each it sees; shape (key heads, heads per key head x positions, seen)."""
    wide = torch.promote_types(query.dtype, torch.float32)
    asking, seen = _asking(query, key.shape[1], block, scale).to(wide), block.seen(key[0]).to(wide)
    products = torch.bmm(asking, seen.transpose(1, 2))
    length = block.last - block.first
    own = products.view(key.shape[1], -1, length, seen.shape[1])[..., -length:]
    own.masked_fill_(_later(length, query.device), -torch.inf)
    return products.softmax(dim=-1)


@lru_cache(maxsize=64)
def _later(length: int, device: torch.device) -> Tensor:
    """What comes after each position; shape (length, length)."""
    with torch.inference_mode(mode=False):
        return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)


@lru_cache(maxsize=64)
def _after(length: int, seen: int) -> Tensor:
    """A piece sees what it follows and, of itself, what came before; shape (length, seen)."""
    with torch.inference_mode(mode=False):
        return torch.ones(length, seen, dtype=torch.bool).tril(seen - length)


AttentionInterface.register(PIECES, attend)
AttentionMaskInterface.register(PIECES, sdpa_mask)
