"""Log-probabilities and logits of completions. One path for scoring, training and evaluation."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.models.tokens import Encoded


class Rows(NamedTuple):
    """Sequences padded on the right.

    Attributes:
        input_ids: shape (rows, length).
        attention_mask: 1 on real tokens, shape (rows, length).
        completion_mask: 1 on completion tokens, shape (rows, length).
    """

    input_ids: Tensor
    attention_mask: Tensor
    completion_mask: Tensor


def collate(examples: Sequence[Encoded], *, pad_id: int) -> Rows:
    """Pad examples on the right to the longest of them."""
    length = max(len(e.prompt) + len(e.completion) for e in examples)
    ids = torch.full((len(examples), length), pad_id, dtype=torch.long)
    attention, completion = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, e in enumerate(examples):
        border, end = len(e.prompt), len(e.prompt) + len(e.completion)
        ids[row, :end] = torch.tensor(e.prompt + e.completion)
        attention[row, :end] = 1
        completion[row, border:end] = 1
    return Rows(ids, attention, completion)


class CompletionLogits(NamedTuple):
    """Next-token logits at the positions that predict completion tokens, rows one after the other.

    Attributes:
        logits: shape (tokens, vocabulary), float32.
        targets: the completion tokens, shape (tokens,).
        row: which row each belongs to, shape (tokens,).
    """

    logits: Tensor
    targets: Tensor
    row: Tensor


def completion_logits(model: Any, rows: Rows) -> CompletionLogits:
    """Logits at completion positions only; the LM head never sees the positions before the first completion."""
    length = rows.input_ids.shape[1]
    # A completion token at position t is predicted at t - 1; nothing predicts position 0.
    first = max(int(rows.completion_mask.argmax(dim=1).min()), 1)
    out = model(
        input_ids=rows.input_ids,
        attention_mask=rows.attention_mask,
        logits_to_keep=length - first + 1,
        use_cache=False,
    )
    mask = rows.completion_mask[:, first:].bool()
    return CompletionLogits(
        logits=out.logits[:, :-1][mask].float(),
        targets=rows.input_ids[:, first:][mask],
        row=mask.nonzero()[:, 0],
    )


def completion_logps(model: Any, rows: Rows) -> Tensor:
    """Log-probability of each row's completion, nats, summed over its tokens; shape (rows,), float32."""
    found = completion_logits(model, rows)
    per_token = -F.cross_entropy(found.logits, found.targets, reduction="none")
    return torch.zeros(rows.input_ids.shape[0], dtype=per_token.dtype).index_add(0, found.row, per_token)


TOKENS_PER_BATCH = 4096
"""Most tokens of one forward pass without gradients: logits of 4096 positions over 50,000 words take 0.8 GB."""


def batches_by_length(examples: Sequence[Encoded], *, size: int, tokens: int = TOKENS_PER_BATCH) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first, so that memory peaks at once and padding stays small.

    Args:
        examples: what to batch.
        size: most examples in a batch.
        tokens: most tokens in a batch, padding included; a single example may be longer.
    """
    lengths = [len(e.prompt) + len(e.completion) for e in examples]
    order = sorted(range(len(examples)), key=lambda i: (-lengths[i], i))
    while order:
        fits = max(1, min(size, tokens // max(lengths[order[0]], 1)))
        yield order[:fits]
        order = order[fits:]
