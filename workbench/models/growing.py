"""Answers that grow by one token at a time, and what a model remembers of them.

Prompts are read without padding where the model allows it, each once. Keys and values lie in one block with room for
the whole answer, so that a step writes what is new and copies nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from workbench.models.attention import pieces
from workbench.models.flex import Piece
from workbench.models.forward import Layout

Tokens = tuple[int, ...]

KEPT_SHARE = 0.75
"""Rows whose answer has ended leave when at most this share of the rows goes on: leaving copies what stays."""


class Roomy(DynamicLayer):
    """Keys and values of one layer, of shape (rows, key heads, length, size), with room behind them."""

    def __init__(self, keys: Tensor, values: Tensor, *, room: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = values.dtype, values.device, True
        self._length = keys.shape[2]
        self._blocks = tuple(_with_room(each.to(values.dtype), room) for each in (keys, values))
        self._show()

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write what is new behind what there is, and return all of it."""
        there, self._length = self._length, self._length + key_states.shape[2]
        for block, new in zip(self._blocks, (key_states, value_states), strict=True):
            block[:, :, there : self._length] = new
        return self._show()

    def keep(self, rows: Tensor) -> None:
        """Let go of all rows but these."""
        self._blocks = tuple(block.index_select(0, rows) for block in self._blocks)
        self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        keys, values = (block[:, :, : self._length] for block in self._blocks)
        self.keys, self.values = keys, values
        return keys, values


def _with_room(each: Tensor, room: int) -> Tensor:
    rows, heads, length, size = each.shape
    block = each.new_zeros(rows, heads, length + room, size)
    block[:, :, :length] = each
    return block


class _Read(NamedTuple):
    """Prompts as a model has read them, each row ending in the same column.

    Attributes:
        cache: what the model remembers.
        real: 1 where a row has a token, shape (rows, width).
        logits: of what comes next, shape (rows, vocabulary).
    """

    cache: Any
    real: Tensor
    logits: Tensor


class Growing:
    """A batch of answers.

    Args:
        model: on its device.
        prompts: of each answer; the same one may come several times.
        pad: fills rows where prompts are padded.
        layout: one that the model allows.
        room: most tokens of an answer.
    """

    @torch.no_grad()
    def __init__(self, model: Any, prompts: Sequence[Tokens], *, pad: int, layout: Layout, room: int) -> None:
        self._model = model
        self._packed = layout == "packed"
        distinct = list(dict.fromkeys(prompts))
        read = _read_packed(model, distinct) if self._packed else _read_padded(model, distinct, pad)
        rows = torch.tensor([distinct.index(p) for p in prompts], device=model.device)
        self._cache, self._real, self._logits = read.cache, read.real[rows], read.logits[rows]
        if all(type(layer) is DynamicLayer for layer in self._cache.layers):
            self._cache.layers = [
                Roomy(layer.keys[rows], layer.values[rows], room=room) for layer in self._cache.layers
            ]
        else:
            self._cache.reorder_cache(rows)

    def steps(
        self, draw: Callable[[Tensor, list[int], int], list[int]], ends: set[int], most: int
    ) -> Iterator[list[tuple[int, int]]]:
        """The tokens of one step after the other, each with the answer it belongs to.

        Args:
            draw: makes a token for each row of its logits; told which answer is in which row, and the step.
            ends: tokens after which an answer has ended.
            most: tokens of an answer.
        """
        answers = list(range(len(self._logits)))
        ended: set[int] = set()
        for step in range(most):
            tokens = draw(self._logits, answers, step)
            yield [(a, token) for a, token in zip(answers, tokens, strict=True) if a not in ended]
            ended |= {a for a, token in zip(answers, tokens, strict=True) if token in ends}
            going = [k for k, a in enumerate(answers) if a not in ended]
            if not going or step + 1 == most:
                return
            if len(going) <= KEPT_SHARE * len(answers):
                self._keep(torch.tensor(going, device=self._logits.device))
                answers, tokens = [answers[k] for k in going], [tokens[k] for k in going]
            self._read(tokens)

    @torch.no_grad()
    def _read(self, tokens: list[int]) -> None:
        """Read one token more of each row."""
        self._real = torch.cat([self._real, torch.ones_like(self._real[:, :1])], dim=-1)
        out = self._model(
            input_ids=torch.tensor(tokens, device=self._real.device)[:, None],
            attention_mask=self._real.bool()[:, None, None] if self._packed else self._real,
            position_ids=self._real.sum(dim=-1, keepdim=True) - 1,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache, self._logits = out.past_key_values, out.logits[:, -1]

    def _keep(self, rows: Tensor) -> None:
        if isinstance(self._cache.layers[0], Roomy):
            for layer in self._cache.layers:
                layer.keep(rows)
        else:
            self._cache.reorder_cache(rows)
        self._real, self._logits = self._real[rows], self._logits[rows]


def _read_padded(model: Any, prompts: Sequence[Tokens], pad: int) -> _Read:
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=model.device)
    real = _real(prompts, model.device)
    out = model(
        input_ids=ids,
        attention_mask=real,
        position_ids=(real.cumsum(dim=-1) - 1).clamp(min=0),
        use_cache=True,
        logits_to_keep=1,
    )
    return _Read(out.past_key_values, real, out.logits[:, -1])


def _read_packed(model: Any, prompts: Sequence[Tokens]) -> _Read:
    """Prompts in one row; what is remembered of them goes into a row each."""
    ends = list(accumulate(map(len, prompts)))
    starts = [0, *ends[:-1]]
    out = model(
        input_ids=torch.tensor([[token for p in prompts for token in p]], device=model.device),
        attention_mask=pieces([Piece(start, end, start, start) for start, end in zip(starts, ends, strict=True)]),
        position_ids=torch.tensor([[place for p in prompts for place in range(len(p))]], device=model.device),
        use_cache=True,
        logits_to_keep=torch.tensor(ends, device=model.device) - 1,
    )
    width = max(map(len, prompts))
    cache = DynamicCache()
    for layer, found in enumerate(out.past_key_values.layers):
        keys, values = (_in_rows(each[0], starts, ends, width) for each in (found.keys, found.values))
        cache.update(keys, values, layer)
    return _Read(cache, _real(prompts, model.device), out.logits[0])


def _in_rows(packed: Tensor, starts: Sequence[int], ends: Sequence[int], width: int) -> Tensor:
    """From shape (heads, all tokens, size) to (prompts, heads, width, size), filled from the right."""
    heads, _, size = packed.shape
    rows = packed.new_zeros(len(ends), heads, width, size)
    for row, start, end in zip(rows, starts, ends, strict=True):
        row[:, width - (end - start) :] = packed[:, start:end]
    return rows


def _real(prompts: Sequence[Tokens], device: torch.device) -> Tensor:
    width = max(map(len, prompts))
    return torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
