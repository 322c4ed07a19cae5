"""Attention over a packed row by FlexAttention (Dong et al., arXiv 2412.05496), whose kernels skip what nothing sees."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers.integrations.flex_attention import flex_attention_forward

CAPABLE = (8, 0)
"""Compute capability from which torch's kernels for it exist."""

Spans = tuple[tuple[int, int, int, int], ...]
"""Pieces of a packed row, as `attention.pieces` is given them."""


def has_flex(device: torch.device) -> bool:
    """Whether a device compiles FlexAttention."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= CAPABLE


def attend_by_flex(module: Any, asked: tuple[Tensor, Tensor, Tensor], spans: Spans, scale: float) -> Tensor:
    """Attention as `attention.attend` gives it, of query, key and value; products in the values' precision."""
    query, key, value = (each.to(asked[2].dtype) for each in asked)
    return flex_attention_forward(module, query, key, value, block_mask(spans, value.device), scaling=scale)[0]


@lru_cache(maxsize=4)
def block_mask(spans: Spans, device: torch.device) -> BlockMask:
    """What each position sees: its piece up to itself, and the prompt the piece follows."""
    lengths = torch.tensor([end - start for start, end, _, _ in spans])
    each = torch.tensor(spans).repeat_interleave(lengths, dim=0).to(device)
    own, prompt, border = each[:, 0], each[:, 2], each[:, 3]

    def sees(_batch: Tensor, _head: Tensor, asks: Tensor, seen: Tensor) -> Tensor:
        follows = (seen >= prompt[asks]) & (seen < border[asks])
        return follows | ((seen >= own[asks]) & (seen <= asks))

    length = spans[-1][1]
    return create_block_mask(sees, None, None, length, length, device=str(device))
