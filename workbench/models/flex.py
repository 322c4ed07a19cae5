"""Attention over a packed row by FlexAttention (Dong et al., arXiv 2412.05496), whose kernels skip what nothing sees."""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers.integrations.flex_attention import flex_attention_forward

CAPABLE = (8, 0)
"""Compute capability from which torch's kernels for it exist."""


class Piece(NamedTuple):
    """Neighbouring positions of a packed row that see the same, and themselves up to themselves.

    Attributes:
        start: the first.
        end: after the last.
        prompt: they see what lies between here
        border: and here; twice the same place for a prompt, which follows nothing.
        head: and what lies before this: the beginning that all prompts of the row have in common.
    """

    start: int
    end: int
    prompt: int
    border: int
    head: int = 0


Spans = tuple[Piece, ...]
"""Pieces of a packed row, one after the other."""


def has_flex(device: torch.device) -> bool:
    """Whether a device compiles FlexAttention."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= CAPABLE


def attend_by_flex(module: Any, asked: tuple[Tensor, Tensor, Tensor], spans: Spans, scale: float) -> Tensor:
    """Attention as `attention.attend` gives it, of query, key and value; products in the values' precision."""
    query, key, value = (each.to(asked[2].dtype) for each in asked)
    return flex_attention_forward(module, query, key, value, block_mask(spans, value.device), scaling=scale)[0]


@lru_cache(maxsize=4)
def block_mask(spans: Spans, device: torch.device) -> BlockMask:
    """What each position sees: its piece up to itself, the prompt the piece follows, and what all prompts begin with."""
    lengths = torch.tensor([each.end - each.start for each in spans])
    each = torch.tensor(spans).repeat_interleave(lengths, dim=0).to(device)
    own, prompt, border, head = each[:, 0], each[:, 2], each[:, 3], each[:, 4]

    def sees(_batch: Tensor, _head: Tensor, asks: Tensor, seen: Tensor) -> Tensor:
        follows = (seen >= prompt[asks]) & (seen < border[asks])
        return follows | (seen < head[asks]) | ((seen >= own[asks]) & (seen <= asks))

    length = spans[-1].end
    return create_block_mask(sees, None, None, length, length, device=str(device))
