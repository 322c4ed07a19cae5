"""Attention over a packed row: many prompts with their completions in one row, without padding and without waste.

A dense mask over such a row would cost the square of its length. Here each piece is computed against what it sees and
nothing else: a prompt against itself, a completion against its prompt and itself. The pieces travel in the place of the
mask, which every architecture hands on unchanged where it has four dimensions.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
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
    groups, scale = query.shape[1] // key.shape[1], given.get("scaling") or query.shape[-1] ** -0.5
    heads = _Heads(query, repeat_kv(key, groups), repeat_kv(value, groups), scale)
    found = [_piece(heads, span) for span in mask[0, 0].tolist()]
    return torch.cat(found, dim=2).transpose(1, 2), None


class _Heads(NamedTuple):
    """What attention is computed from, each of shape (1, heads, length, size), and by what products are multiplied."""

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float


def _piece(heads: _Heads, span: Sequence[int]) -> Tensor:
    start, end, prompt, border = span
    q, k, v = (each[:, :, start:end] for each in heads[:3])
    if prompt < border:
        k = torch.cat([heads.key[:, :, prompt:border], k], dim=2)
        v = torch.cat([heads.value[:, :, prompt:border], v], dim=2)
    if torch.is_grad_enabled() and q.shape[2] * k.shape[2] <= KEPT:
        return _kept(q, k, v, heads.scale)
    if prompt < border:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=_after(q.shape[2], k.shape[2]), scale=heads.scale)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=heads.scale)


KEPT = 400 * 400
"""Largest piece, in pairs of tokens, whose attention is kept for the way back: 6 MB a layer for 9 heads. torch's own
kernel computes it again there, a quarter of a training step in a profile; longer pieces would need too much memory."""


def _kept(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Attention written out, in float32: nearer to float32's result in bfloat16 rounds, and measured no slower."""
    wide = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast("cpu", enabled=False):
        hidden = ~_after(q.shape[2], k.shape[2])
        products = (q.to(wide) * scale) @ k.to(wide).transpose(2, 3)
        return (products.masked_fill(hidden, -torch.inf).softmax(dim=-1) @ v.to(wide)).to(v.dtype)


@lru_cache(maxsize=64)
def _after(length: int, seen: int) -> Tensor:
    """A piece sees what it follows and, of itself, what came before; shape (length, seen)."""
    with torch.inference_mode(mode=False):
        return torch.ones(length, seen, dtype=torch.bool).tril(seen - length)


AttentionInterface.register(PIECES, attend)
AttentionMaskInterface.register(PIECES, sdpa_mask)
