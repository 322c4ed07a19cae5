"""Answers of a policy, sampled in batches, the same for the same seed."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from preference_data.records import Prompt
from workbench.models.tokens import Encoded, prompt_ids


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn. `temperature` 0 is greedy."""

    max_new_tokens: int
    temperature: float
    top_p: float
    batch_size: int
    seed: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One sampled answer.

    Attributes:
        index: position of its prompt in the list given.
        text: the answer without special tokens.
        encoded: prompt and completion ids, the closing token included where the model wrote one.
        finished: False where `max_new_tokens` cut it.
    """

    index: int
    text: str
    encoded: Encoded
    finished: bool


NUCLEUS_AT_MOST = 256


class Nucleus(LogitsProcessor):
    """Temperature and top-p sampling (Holtzman et al., arXiv 1904.09751) within the 256 likeliest tokens.

    Sorting a vocabulary of 50,000 for every token costs a quarter of a small model's forward pass; a nucleus larger
    than 256 tokens is cut to them.
    """

    def __init__(self, temperature: float, top_p: float) -> None:
        self._temperature, self._top_p = temperature, top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores over temperature, everything outside the nucleus at minus infinity; shape (rows, vocabulary)."""
        scores = scores / self._temperature
        if self._top_p == 1:
            return scores
        top, index = scores.topk(min(NUCLEUS_AT_MOST, scores.shape[-1]), dim=-1)
        chance = (top - scores.logsumexp(-1, keepdim=True)).exp()
        # A token is kept while those likelier than it do not yet reach top_p together; the likeliest always is.
        kept = top.masked_fill(chance.cumsum(-1) - chance >= self._top_p, -torch.inf)
        return torch.full_like(scores, -torch.inf).scatter(-1, index, kept)


def sample(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Answer]:
    """One answer per prompt, in the order given. Name a prompt twice for two answers.

    Always in the weights' own precision: one token at a time, autocast would convert all weights for every token.
    Batches are formed by prompt length and each is seeded by the prompts in it, so the same call gives the same
    answers wherever it runs with the same thread count.
    """
    ids = [prompt_ids(tokenizer, p) for p in prompts]
    order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), i))
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), sampling.batch_size):
        batch = order[start : start + sampling.batch_size]
        for answer in _sample_batch(model, tokenizer, {i: ids[i] for i in batch}, sampling):
            answers[answer.index] = answer
        progress(len(answers))
    return [answers[i] for i in range(len(prompts))]


def _sample_batch(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: dict[int, list[int]], sampling: Sampling
) -> Iterator[Answer]:
    pad, width = tokenizer.pad_token_id, max(map(len, prompts.values()))
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts.values()])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts.values()])
    greedy = sampling.temperature == 0
    config = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=not greedy,
        top_k=0 if not greedy else None,
        pad_token_id=pad,
        eos_token_id=model.generation_config.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]), torch.autocast("cpu", enabled=False):
        torch.manual_seed(_batch_seed(sampling.seed, prompts))
        nucleus = [] if greedy else [Nucleus(sampling.temperature, sampling.top_p)]
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=LogitsProcessorList(nucleus),
        )
    ends = _end_tokens(model, tokenizer)
    for (index, prompt), row in zip(prompts.items(), out[:, width:].tolist(), strict=True):
        cut = next((k + 1 for k, token in enumerate(row) if token in ends), len(row))
        yield Answer(
            index=index,
            text=str(tokenizer.decode(row[:cut], skip_special_tokens=True)).strip(),
            encoded=Encoded(tuple(prompt), tuple(row[:cut])),
            finished=bool(cut) and row[cut - 1] in ends,
        )


def _end_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    ends: Any = model.generation_config.eos_token_id
    listed: list[Any] = ends if isinstance(ends, list) else [ends]
    own: Any = tokenizer.eos_token_id
    return {e for e in (*listed, own) if e is not None}


def _batch_seed(seed: int, prompts: dict[int, list[int]]) -> int:
    text = f"{seed}|{sorted(prompts.items())}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
