"""Log-probabilities and logits of completions. One path for scoring, training and evaluation.

Completions of one prompt share a row: the prompt is computed once, each completion sees it and itself, and positions
restart where the prompt ends. The LM head sees only the positions that predict a completion token. Both are exact.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.models.tokens import Encoded

MOST_SHARED = 8
"""Most completions of one row."""

WORTH_SHARING = 8
"""A row takes completions while together they are at most this many times as long as their prompt: attention grows with
the square of the row's length, and short prompts save less than that costs."""


class Rows(NamedTuple):
    """Prompts, each with completions of it, padded on the right.

    Attributes:
        input_ids: shape (rows, length).
        position_ids: places in the conversation, which restart for each completion, shape (rows, length).
        attention_mask: which position sees which, boolean, shape (rows, 1, length, length); or 1 on real tokens,
            shape (rows, length), where no prompt is shared.
        sources: row and position of what predicts each completion token, examples one after the other, shape
            (2, tokens).
        targets: the completion tokens, shape (tokens,).
        example: which example each belongs to, in the order given to `collate`, shape (tokens,).
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_mask: Tensor
    sources: Tensor
    targets: Tensor
    example: Tensor

    @property
    def examples(self) -> int:
        """How many examples there are; each has at least one completion token."""
        return int(self.example[-1]) + 1


def collate(examples: Sequence[Encoded], *, pad_id: int, share: bool = True) -> Rows:
    """Lay examples out in rows.

    Args:
        examples: with completions of at least one token.
        pad_id: fills rows; nothing attends to it.
        share: put completions of one prompt into one row; False for models that `shares_prompts` refuses.
    """
    rows = _together(examples, MOST_SHARED if share else 1)
    length = max(_length(examples, row) for row in rows)
    ids = torch.full((len(rows), length), pad_id, dtype=torch.long)
    places, real = torch.zeros_like(ids), torch.zeros_like(ids)
    # Everything sees itself, padding too: a softmax over nothing is not a number.
    sees = torch.eye(length, dtype=torch.bool).repeat(len(rows), 1, 1)
    sources: dict[int, list[tuple[int, int]]] = {}
    for at, row in enumerate(rows):
        prompt = examples[row[0]].prompt
        border = end = len(prompt)
        ids[at, :border] = torch.tensor(prompt)
        for i in row:
            start, end = end, end + len(examples[i].completion)
            ids[at, start:end] = torch.tensor(examples[i].completion)
            places[at, start:end] = torch.arange(border, border + end - start)
            sees[at, start:end, :border] = True
            sees[at, start:end, start:end] = _causal(end - start)
            sources[i] = [(at, border - 1), *((at, position) for position in range(start, end - 1))]
        places[at, :border] = torch.arange(border)
        sees[at, :border, :border] = _causal(border)
        real[at, :end] = 1
    order = range(len(examples))
    return Rows(
        input_ids=ids,
        position_ids=places,
        attention_mask=sees[:, None] if any(len(row) > 1 for row in rows) else real,
        sources=torch.tensor([place for i in order for place in sources[i]]).T,
        targets=torch.tensor([token for e in examples for token in e.completion]),
        example=torch.tensor([i for i in order for _ in examples[i].completion]),
    )


class CompletionLogits(NamedTuple):
    """Next-token logits at the positions that predict completion tokens, examples one after the other.

    Attributes:
        logits: shape (tokens, vocabulary), float32 or wider.
        targets: the completion tokens, shape (tokens,).
        example: which example each belongs to, shape (tokens,).
    """

    logits: Tensor
    targets: Tensor
    example: Tensor


def completion_logits(model: Any, rows: Rows) -> CompletionLogits:
    """Logits at completion positions only.

    The LM head is called by the model itself, which may scale or cap what it returns; a hook narrows what it is given.
    """
    row, position = rows.sources
    # Not `hidden[row, position]`: torch lists its gradient on CPU among those that may differ from run to run.
    flat = row * rows.input_ids.shape[1] + position
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda _, given: (given[0].flatten(0, 1).index_select(0, flat).unsqueeze(0), *given[1:])
    )
    try:
        out = model(
            input_ids=rows.input_ids,
            attention_mask=rows.attention_mask,
            position_ids=rows.position_ids,
            use_cache=False,
        )
    finally:
        hook.remove()
    at_least_single = torch.promote_types(out.logits.dtype, torch.float32)
    return CompletionLogits(out.logits[0].to(at_least_single), rows.targets, rows.example)


def completion_logps(model: Any, rows: Rows) -> Tensor:
    """Log-probability of each example's completion, nats, summed over its tokens; shape (examples,), float32."""
    found = completion_logits(model, rows)
    per_token = -F.cross_entropy(found.logits, found.targets, reduction="none")
    return torch.zeros(rows.examples, dtype=per_token.dtype).index_add(0, found.example, per_token)


TOKENS_PER_BATCH = 4096
"""Most tokens of one forward pass without gradients: logits of 4096 positions over 50,000 words take 0.8 GB."""


def batches_by_length(
    examples: Sequence[Encoded], *, size: int, tokens: int = TOKENS_PER_BATCH, share: bool = True
) -> Iterator[list[int]]:
    """Indices in batches of rows of similar length, longest first, so that memory peaks at once and padding is small.

    Args:
        examples: what to batch; those that will share a row stay together.
        size: most examples in a batch.
        tokens: most tokens in a batch, padding included; a single row may be longer.
        share: as `collate` will be called.
    """
    rows = _together(examples, min(size, MOST_SHARED) if share else 1)
    rows.sort(key=lambda row: (-_length(examples, row), row))
    while rows:
        longest = max(_length(examples, rows[0]), 1)
        batch, count = rows.pop(0), 1
        while rows and len(batch) + len(rows[0]) <= size and (count + 1) * longest <= tokens:
            batch += rows.pop(0)
            count += 1
        yield batch


def _together(examples: Sequence[Encoded], most: int) -> list[list[int]]:
    """Indices of the examples of each row, at most `most`, rows by their first example."""
    open_rows: dict[tuple[int, ...], tuple[list[int], int]] = {}
    rows: list[list[int]] = []
    for i, e in enumerate(examples):
        row, length = open_rows.get(e.prompt, ([], 0))
        length += len(e.completion)
        if not row or len(row) == most or length > WORTH_SHARING * len(e.prompt):
            row, length = [], len(e.completion)
            rows.append(row)
        row.append(i)
        open_rows[e.prompt] = row, length
    return rows


def _length(examples: Sequence[Encoded], row: Sequence[int]) -> int:
    return len(examples[row[0]].prompt) + sum(len(examples[i].completion) for i in row)


def _causal(length: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()
