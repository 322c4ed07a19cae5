"""Log-probabilities and logits of completions. One path for scoring, training and evaluation.

Completions of one prompt are laid out behind it: the prompt is computed once, each completion sees it and itself, and
positions restart where the prompt ends. In a packed row, what all prompts begin with, such as a system message, is
computed once for all of them. The LM head sees only the positions that predict a completion token. Both are
exact.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, takewhile
from threading import get_ident
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.models.attention import pieces
from workbench.models.flex import Piece
from workbench.models.head import CHUNK, DirectHead, Seen, token_logps
from workbench.models.tokens import Encoded

Layout = Literal["packed", "shared", "plain"]
"""All groups (a prompt with its completions) in one row; a row per group; a row per completion. See `layout_of`."""

MOST_SHARED = 8
"""Most completions of one group."""

WORTH_SHARING = 8
"""A group takes completions while together they are at most this many times as long as their prompt: where a group is a
row, attention grows with the square of its length, and short prompts save less than that costs."""

WORTH_A_HEAD = 8
"""Fewest tokens that all prompts of a packed row begin with for these to be computed once."""


class Rows(NamedTuple):
    """Prompts, each with completions of it, padded on the right.

    Attributes:
        input_ids: shape (rows, length).
        position_ids: places in the conversation, which restart for each completion, shape (rows, length).
        attention_mask: which position sees which, boolean, shape (rows, 1, length, length); or 1 on real tokens,
            shape (rows, length), where no prompt is shared; or, packed, the pieces of the only row (`attention.pieces`).
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

    def on(self, device: torch.device) -> "Rows":
        """The same on another device."""
        return Rows(*(tensor.to(device) for tensor in self))

    @property
    def examples(self) -> int:
        """How many examples there are; each has at least one completion token."""
        return int(self.example[-1]) + 1


def collate(examples: Sequence[Encoded], *, pad_id: int, layout: Layout = "shared") -> Rows:
    """Lay examples out in rows.

    Args:
        examples: with completions of at least one token.
        pad_id: fills rows; nothing attends to it.
        layout: one that `layout_of` the model allows.
    """
    groups = _together(examples, 1 if layout == "plain" else MOST_SHARED)
    placed = [_place(examples, group) for group in groups]
    if layout == "packed":
        return _packed(examples, placed)
    length = max(each.end for each in placed)
    ids = torch.full((len(groups), length), pad_id, dtype=torch.long)
    places, real = torch.zeros_like(ids), torch.zeros_like(ids)
    # Everything sees itself, padding too: a softmax over nothing is not a number.
    sees = torch.eye(length, dtype=torch.bool).repeat(len(groups), 1, 1)
    for at, each in enumerate(placed):
        ids[at, : each.end] = torch.tensor(each.ids)
        places[at, : each.end] = torch.tensor(each.places)
        real[at, : each.end] = 1
        sees[at, : each.border, : each.border] = _causal(each.border)
        for start, end in each.spans.values():
            sees[at, start:end, : each.border] = True
            sees[at, start:end, start:end] = _causal(end - start)
    return Rows(
        input_ids=ids,
        position_ids=places,
        attention_mask=sees[:, None] if any(len(group) > 1 for group in groups) else real,
        **_read_from(examples, [(at, 0, each) for at, each in enumerate(placed)]),
    )


class _Placed(NamedTuple):
    """A group in tokens: where its prompt ends, and where each example's completion lies."""

    ids: list[int]
    places: list[int]
    border: int
    spans: dict[int, tuple[int, int]]

    @property
    def end(self) -> int:
        return len(self.ids)


def _place(examples: Sequence[Encoded], group: Sequence[int]) -> _Placed:
    prompt = examples[group[0]].prompt
    ids, places, border = list(prompt), list(range(len(prompt))), len(prompt)
    spans: dict[int, tuple[int, int]] = {}
    for i in group:
        spans[i] = (len(ids), len(ids) + len(examples[i].completion))
        ids += examples[i].completion
        places += range(border, border + len(examples[i].completion))
    return _Placed(ids, places, border, spans)


def _packed(examples: Sequence[Encoded], placed: Sequence[_Placed]) -> Rows:
    head = _in_common(placed)
    # By group, where its first token would lie, were its head in front of its rest.
    firsts = list(accumulate((each.end - head for each in placed[:-1]), initial=0))
    spans = [Piece(0, head, 0, 0)] if head else []
    for first, each in zip(firsts, placed, strict=True):
        start, border = first + head, first + each.border
        spans.append(Piece(start, border, start, start, head))
        spans += [Piece(first + a, first + b, start, border, head) for a, b in each.spans.values()]
    beginning = placed[0]
    return Rows(
        input_ids=torch.tensor([beginning.ids[:head] + [i for each in placed for i in each.ids[head:]]]),
        position_ids=torch.tensor([beginning.places[:head] + [p for each in placed for p in each.places[head:]]]),
        attention_mask=pieces(spans),
        **_read_from(examples, [(0, first, each) for first, each in zip(firsts, placed, strict=True)]),
    )


def _in_common(placed: Sequence[_Placed]) -> int:
    """How many tokens all prompts begin with, 0 if it is not worth it; the last token of a prompt is its own."""
    first, last = (bound(each.ids[: each.border] for each in placed) for bound in (min, max))
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    common = min(sum(1 for _ in same), *(each.border - 1 for each in placed))
    return common if len(placed) > 1 and common >= WORTH_A_HEAD else 0


def _read_from(examples: Sequence[Encoded], where: Sequence[tuple[int, int, _Placed]]) -> dict[str, Tensor]:
    """What predicts what, for groups by their row and their first position in it."""
    sources: dict[int, list[tuple[int, int]]] = {}
    for row, first, each in where:
        for i, (start, end) in each.spans.items():
            sources[i] = [(row, first + each.border - 1), *((row, first + k) for k in range(start, end - 1))]
    order = range(len(examples))
    return {
        "sources": torch.tensor([place for i in order for place in sources[i]]).T,
        "targets": torch.tensor([token for e in examples for token in e.completion]),
        "example": torch.tensor([i for i in order for _ in examples[i].completion]),
    }


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
    rows = rows.on(model.device)
    out = _run(model, rows, lambda hidden: hidden)
    at_least_single = torch.promote_types(out.logits.dtype, torch.float32)
    return CompletionLogits(out.logits[0].to(at_least_single), rows.targets, rows.example)


class CompletionStates(NamedTuple):
    """What predicts each completion token; its logits are made when asked for, for they are a hundred times as large.

    Attributes:
        states: shape (tokens, size).
        head: makes logits of them.
    """

    states: Tensor
    head: torch.nn.Module

    def logits(self, chunk: slice) -> Tensor:
        """Of some of the tokens, shape (tokens, vocabulary)."""
        return self.head(self.states[chunk])

    def chunks(self) -> list[slice]:
        """All tokens, a few at a time."""
        return [slice(start, start + CHUNK) for start in range(0, len(self.states), CHUNK)]


def completion_states(model: Any, rows: Rows) -> CompletionStates:
    """The states at completion positions; of a model whose head cannot be called directly, its logits."""
    head = model.get_output_embeddings()
    if not isinstance(head, DirectHead):
        return CompletionStates(completion_logits(model, rows).logits, torch.nn.Identity())
    seen: list[Tensor] = []
    _run(model, rows.on(model.device), lambda hidden: seen.append(hidden) or hidden[:, :0])
    return CompletionStates(seen[0][0], head)


def completion_logps(model: Any, rows: Rows) -> Tensor:
    """Log-probability of each example's completion, nats, summed over its tokens; shape (examples,), float32.

    It lies where the model does, the rows may lie anywhere.
    """
    rows = rows.on(model.device)
    return logps_from(completion_states(model, rows), rows)


def logps_from(found: CompletionStates, rows: Rows, seen: Seen | None = None) -> Tensor:
    """The same from the states of these rows, which lie on one device; `seen` is told of each token's distribution."""
    if isinstance(found.head, DirectHead):
        per_token = token_logps(found.head, found.states, rows.targets, seen)
    else:
        if seen:
            seen.note_logits(found.states, rows.targets)
        per_token = -F.cross_entropy(found.states, rows.targets, reduction="none")
    return per_token.new_zeros(rows.examples).index_add(0, rows.example, per_token)


def _run(model: Any, rows: Rows, narrow: Callable[[Tensor], Tensor]) -> Any:
    """A forward pass whose LM head is given what `narrow` makes of the hidden states, shape (1, tokens, size).

    Other threads may be in a pass of the same model.
    """
    row, position = rows.sources
    # Not `hidden[row, position]`: torch lists its gradient on CPU among those that may differ from run to run.
    flat = row * rows.input_ids.shape[1] + position
    ours = get_ident()

    def narrowed(_: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if get_ident() != ours:
            return given
        return narrow(given[0].flatten(0, 1).index_select(0, flat).unsqueeze(0)), *given[1:]

    hook = model.get_output_embeddings().register_forward_pre_hook(narrowed)
    try:
        return model(
            input_ids=rows.input_ids,
            attention_mask=rows.attention_mask,
            position_ids=rows.position_ids,
            use_cache=False,
        )
    finally:
        hook.remove()


TOKENS_PER_BATCH = 4096
"""Most tokens of one forward pass without gradients: logits of 4096 positions over 50,000 words take 0.8 GB."""


def batches_by_length(
    examples: Sequence[Encoded], *, size: int, tokens: int = TOKENS_PER_BATCH, layout: Layout = "shared"
) -> Iterator[list[int]]:
    """Indices in batches of groups of similar length, longest first, so that memory peaks at once and padding is small.

    Args:
        examples: what to batch; those of one group stay together.
        size: most examples in a batch.
        tokens: most tokens in a batch, padding included; a single group may be longer.
        layout: as `collate` will be called.
    """
    groups = _together(examples, 1 if layout == "plain" else min(size, MOST_SHARED))
    groups.sort(key=lambda group: (-_length(examples, group), group))
    while groups:
        longest = max(_length(examples, groups[0]), 1)
        batch, used = groups.pop(0), longest
        while groups and len(batch) + len(groups[0]) <= size:
            used += _length(examples, groups[0]) if layout == "packed" else longest
            if used > tokens:
                break
            batch += groups.pop(0)
        yield batch


def _together(examples: Sequence[Encoded], most: int) -> list[list[int]]:
    """Indices of the examples of each group, at most `most`, groups by their first example."""
    open_groups: dict[tuple[int, ...], tuple[list[int], int]] = {}
    groups: list[list[int]] = []
    for i, e in enumerate(examples):
        group, length = open_groups.get(e.prompt, ([], 0))
        length += len(e.completion)
        if not group or len(group) == most or length > WORTH_SHARING * len(e.prompt):
            group, length = [], len(e.completion)
            groups.append(group)
        group.append(i)
        open_groups[e.prompt] = group, length
    return groups


def _length(examples: Sequence[Encoded], group: Sequence[int]) -> int:
    return len(examples[group[0]].prompt) + sum(len(examples[i].completion) for i in group)


def _causal(length: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()
