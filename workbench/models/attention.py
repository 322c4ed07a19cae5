"""Attention over a packed row: many prompts with their completions in one row, without padding and without waste.

A dense mask over such a row would cost the square of its length. Here each piece is computed against what it sees and
nothing else: a prompt against itself, a completion against its prompt and itself, both against what all prompts of the
row begin with, which is there once. The pieces travel in the place of the
mask, which every architecture hands on unchanged where it has four dimensions.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from workbench.models.flex import Piece, Spans, attend_by_flex, has_flex

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


def pieces(spans: Sequence[Piece]) -> Tensor:
    """What a packed row consists of, as `attend` takes it in the place of a mask.

    Args:
        spans: one after the other, covering the row.

    Returns:
        Shape (1, 1, pieces, 5).
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
        if mask is not None and _is_one_token(query, mask, given):
            scale = given.get("scaling") or query.shape[-1] ** -0.5
            return _attend_once(query * scale, key, value, mask), None
        return sdpa_attention_forward(module, query, key, value, mask, **given)
    if asked := [name for name in NOT_OURS if given.get(name) is not None]:
        raise ValueError(f"attention by pieces has no {', '.join(asked)}")
    scale = given.get("scaling") or query.shape[-1] ** -0.5
    spans: Spans = tuple(Piece(*each) for each in mask[0, 0].tolist())
    if has_flex(query.device):
        return attend_by_flex(module, (query, key, value), spans, scale), None
    if not torch.is_grad_enabled() and value.dtype == torch.bfloat16:
        return _attend_only((query, key, value), spans, scale), None
    return _Packed.apply(query, key, value, _blocks(spans, query.device), scale), None


def _is_one_token(query: Tensor, mask: Tensor, given: dict[str, Any]) -> bool:
    """Whether a row asks for one position, as in answers that grow; gradients are not wanted there."""
    plain = mask.dtype == torch.bool and not any(given.get(name) is not None for name in NOT_OURS)
    return plain and query.shape[2] == 1 and query.device.type == "cpu" and not torch.is_grad_enabled()


def _attend_once(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention of one position in each row: no key is copied for each of the heads that ask it, as torch does on CPU.

    Args:
        query: scaled, shape (rows, heads, 1, size).
        key: shape (rows, key heads, seen, size).
        value: the same.
        mask: what is seen, shape (rows, 1, 1, seen).

    Returns:
        Shape (rows, 1, heads, size).
    """
    with torch.autocast("cpu", enabled=False):
        asking = query.to(value.dtype).unflatten(1, (key.shape[1], -1)).flatten(2, 3)
        shares = torch.matmul(asking, key.to(value.dtype).transpose(2, 3)).float()
        shares = shares.masked_fill_(~mask, -torch.inf).softmax(dim=-1).to(value.dtype)
        return torch.matmul(shares, value).flatten(1, 2)[:, None]


def _attend_only(asked: tuple[Tensor, Tensor, Tensor], spans: Spans, scale: float) -> Tensor:
    """Attention of query, key and value as in `attend`, by torch's kernel: in bfloat16 and without a way back the faster one.

    In float32 it gains little, and explanations, which compare weights a hair apart, came out wrong under its rounding.
    """
    query, key, value = (each.to(asked[2].dtype) for each in asked)
    found = value.new_empty(1, query.shape[2], query.shape[1], query.shape[3])
    for block, hidden in zip(_blocks(spans, value.device), _hidden(spans, value.device, value.dtype), strict=True):
        seen = (block.seen(each[0])[None] for each in (key, value))
        attended = scaled_dot_product_attention(
            query[:, :, block.first : block.last], *seen, attn_mask=hidden, scale=scale, enable_gqa=True
        )
        found[:, block.first : block.last] = attended.transpose(1, 2)
    return found


KEPT = 400 * 400
"""Largest piece, in pairs of tokens, whose attention is kept for the way back: 3 MB a layer for 9 heads in bfloat16.
Longer ones are computed again there, as torch's kernel does for all; they would need too much memory."""

ROWS = 256
"""Most positions whose attention is computed at once. What comes after them is not computed at all."""


class _Block(NamedTuple):
    """Neighbouring positions `first` to `last` whose attention is computed at once.

    Attributes:
        first: of them.
        last: after the last.
        parts: what they see: from where to where, the last one up to `last`.
        hidden: added to their products with what they see: -inf where they do not see it, else 0; shape (last - first,
            length of the last part).
        kept: whether their attention is kept for the way back.
    """

    first: int
    last: int
    parts: tuple[tuple[int, int], ...]
    hidden: Tensor
    kept: bool

    def seen(self, each: Tensor) -> Tensor:
        """Keys or values for these positions; shape (key heads, seen, size)."""
        found = [each[:, start:end] for start, end in self.parts]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def hidden_of_all(self) -> Tensor:
        """`hidden` with what comes before the last part, which is seen; shape (last - first, seen)."""
        return pad(self.hidden, (sum(end - start for start, end in self.parts[:-1]), 0))

    def add(self, gradient: Tensor, to: Tensor) -> None:
        """Add the gradient of what is seen, in the layout of `seen`, to that of the row."""
        lengths = [end - start for start, end in self.parts]
        for (start, end), part in zip(self.parts, gradient.split(lengths, dim=1), strict=True):
            to[:, start:end] += part


@lru_cache(maxsize=4)
def _blocks(spans: Spans, device: torch.device) -> list[_Block]:
    """Pieces in blocks: long ones in several, short ones that follow each other together."""
    blocks: list[_Block] = []
    for pieces in _neighbours(spans):
        start, end, before = pieces[0].start, pieces[-1].end, _before(pieces[0])
        seen = sum(b - a for a, b in before) + end - start
        rows = ROWS if len(pieces) > 1 else max(1, min(ROWS, KEPT // seen))
        for first in range(start, end, rows):
            last = min(first + rows, end)
            hidden = torch.ones(last - first, last - start, dtype=torch.bool)
            for each in pieces:
                own = slice(max(each.start, first) - first, min(each.end, last) - first)
                hidden[own, each.start - start :].triu_(max(each.start, first) - each.start + 1)
                if each.border > start:  # its prompt, or a part of it, lies in this block, too
                    hidden[own, max(each.prompt, start) - start : each.border - start] = False
            parts = _joined([*before, (start, last)])
            # Hidden counts from `start`; what was joined to it is seen.
            wide = torch.zeros(last - first, parts[-1][1] - parts[-1][0], dtype=torch.bool)
            wide[:, start - parts[-1][0] :] = hidden
            added = torch.zeros(wide.shape).masked_fill_(wide, -torch.inf)  # a sixth of the time of masked_fill_
            blocks.append(_Block(first, last, parts, added.to(device), (end - start) * seen <= KEPT))
    return blocks


@lru_cache(maxsize=4)
def _hidden(spans: Spans, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Of each block, what is added for all that it is shown; shape (1, 1, positions, seen)."""
    return [block.hidden_of_all().to(dtype)[None, None] for block in _blocks(spans, device)]


def _before(piece: Piece) -> list[tuple[int, int]]:
    """What a piece sees besides itself."""
    return [(a, b) for a, b in ((0, piece.head), (piece.prompt, piece.border)) if a < b]


def _joined(parts: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The same with neighbours as one.

    >>> _joined([(0, 2), (2, 5), (7, 9)])
    ((0, 5), (7, 9))
    """
    joined = [parts[0]]
    for start, end in parts[1:]:
        if start == joined[-1][1]:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return tuple(joined)


def _neighbours(spans: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Pieces that follow each other and fit into a block: those of one prompt, with the prompt where that is short."""
    at = 0
    while at < len(spans):
        pieces = [spans[at]]
        seen = sum(b - a for a, b in _before(pieces[0]))
        for each in spans[at + 1 :]:
            length = each.end - pieces[0].start
            together = _follows(each, pieces[0])
            if not together or length > ROWS or length * (seen + length) > KEPT:
                break
            pieces.append(each)
        at += len(pieces)
        yield pieces


def _follows(piece: Piece, first: Piece) -> bool:
    """Whether a piece sees what the first one does, or that and the first one."""
    same = piece[2:] == first[2:] and first.prompt < first.border
    return same or (piece.prompt, piece.border, piece.head) == (first.start, first.end, first.head)


class _Packed(Function):
    """Attention over a packed row, with its way back.

    Key heads are multiplied with all their query heads at once, gradients are added in place, and products are in the
    values' precision (bfloat16 under autocast), to which queries and keys are rounded as where attention has no way back;
    those before the softmax are in float32 at least.
    """

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        """Query, key and value as in `attend`, the blocks, and by what products are multiplied."""
        query, key, value, blocks, scale = given
        _, heads, length, size = query.shape
        groups, low = key.shape[1], value.dtype
        found = value.new_empty(length, groups, heads // groups, size)
        shares: list[Tensor] = []
        with torch.autocast(query.device.type, enabled=False):
            asking, key = (query[0] * scale).to(low).unflatten(0, (groups, -1)), key.to(low)
            for block in blocks:
                share = _shares(asking, key[0], block).to(low)
                attended = torch.bmm(share, block.seen(value[0]))
                found[block.first : block.last] = attended.unflatten(1, (heads // groups, -1)).permute(2, 0, 1, 3)
                shares += [share] * (block.kept and any(ctx.needs_input_grad))
        ctx.save_for_backward(asking, key, value, *shares)
        ctx.blocks, ctx.scale, ctx.of_query = blocks, scale, query.dtype
        return found.view(1, length, heads, size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of what `forward` was given."""
        asking, key, value, *kept = ctx.saved_tensors
        groups, each, length, size = asking.shape
        low = value.dtype
        given = gradients[0].view(length, groups, each, size)
        d_query = torch.empty_like(asking, dtype=ctx.of_query)
        wide = torch.promote_types(ctx.of_query, torch.float32)  # for sums over blocks
        d_key, d_value = (torch.zeros_like(key[0], dtype=wide) for _ in range(2))
        shares = iter(kept)
        with torch.autocast(key.device.type, enabled=False):
            for block in ctx.blocks:
                rows = slice(block.first, block.last)
                share = next(shares) if block.kept else _shares(asking, key[0], block).to(low)
                back = given[rows].permute(1, 2, 0, 3).flatten(1, 2)
                block.add(torch.bmm(share.transpose(1, 2), back), to=d_value)
                through = torch.bmm(back, block.seen(value[0]).transpose(1, 2))
                products = _softmax_back(through, share, -1, low)
                d_query[:, :, rows] = torch.bmm(products, block.seen(key[0])).unflatten(1, (each, -1))
                block.add(torch.bmm(products.transpose(1, 2), asking[:, :, rows].flatten(1, 2)), to=d_key)
            d_query.mul_(ctx.scale)
        return d_query.flatten(0, 1)[None], d_key.to(ctx.of_query)[None], d_value.to(low)[None], None, None


_softmax_back: Any = torch.ops.aten._softmax_backward_data  # noqa: SLF001 - torch has no public name for it
"""In float32 inside, whatever it is given."""


def _shares(asking: Tensor, key: Tensor, block: _Block) -> Tensor:
    """What each position of a block takes from each it sees.

    Args:
        asking: scaled queries by the key head they ask, shape (key heads, heads per key head, length, size).
        key: of the same precision, shape (key heads, length, size).
        block: which positions.

    Returns:
        Shape (key heads, heads per key head x positions, seen).
    """
    wide = torch.promote_types(asking.dtype, torch.float32)
    rows = asking[:, :, block.first : block.last].flatten(1, 2).to(wide)
    products = torch.bmm(rows, block.seen(key).to(wide).transpose(1, 2))
    by_head = products.unflatten(1, (asking.shape[1], -1))
    by_head[..., -block.hidden.shape[1] :].add_(block.hidden)
    return products.softmax(dim=-1)


AttentionInterface.register(PIECES, attend)
AttentionMaskInterface.register(PIECES, sdpa_mask)
