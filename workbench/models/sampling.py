"""Answers of a policy, sampled in batches, the same for the same seed.

A prompt asked for several answers is read once. Answers that have ended leave the batch.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from preference_data.records import Prompt
from workbench.errors import NumericsError
from workbench.models.forward import Layout
from workbench.models.growing import Growing
from workbench.models.tokens import Encoded, pad_id, prompt_ids


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
        logp: of all its tokens, as they were drawn: nats, under the temperature and nucleus; 0 where the likeliest was taken.
        finished: False where `max_new_tokens` cut it.
    """

    index: int
    text: str
    encoded: Encoded
    finished: bool
    logp: float = 0.0


NUCLEUS_AT_MOST = 256
"""A nucleus larger than this is cut: sorting a vocabulary of 50,000 for every token costs a quarter of a small model's
forward pass."""


def draw(logits: Tensor, chance: Tensor, *, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """One token per row; nucleus sampling (Holtzman et al., arXiv 1904.09751) where `top_p` is below 1.

    Args:
        logits: shape (rows, vocabulary).
        chance: a number in [0, 1) per row that decides, shape (rows,).
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: the likeliest tokens that together have at least this probability are kept.

    Returns:
        Token ids, shape (rows,), and the log of the chance each was drawn with, nats, shape (rows,).

    Raises:
        NumericsError: a logit is not a number.
    """
    if temperature == 0:
        return logits.argmax(dim=-1), torch.zeros(len(logits), device=logits.device)
    scores = logits.float() / temperature
    if bool(scores.isnan().any()):
        raise NumericsError(
            "a policy gives logits that are not numbers; check its weights with `workbench policies --verify`"
        )
    if top_p == 1:
        weights = scores.softmax(dim=-1)
        found = _at(weights, chance)
        return found, _log_chance(weights, found)
    top, index = scores.topk(min(NUCLEUS_AT_MOST, scores.shape[-1]), dim=-1)
    share = (top - scores.logsumexp(-1, keepdim=True)).exp()
    # A token is kept while those likelier than it do not yet reach top_p together; the likeliest always is.
    kept = share * (share.cumsum(-1) - share < top_p)
    found = _at(kept, chance)
    return index.gather(-1, found[:, None])[:, 0], _log_chance(kept, found)


def _log_chance(weights: Tensor, found: Tensor) -> Tensor:
    """Of a column among weights that need not sum to one."""
    return (weights.gather(-1, found[:, None])[:, 0] / weights.sum(dim=-1)).log()


def _at(weights: Tensor, chance: Tensor) -> Tensor:
    """The column at which the running sum of a row passes `chance` of its total; never one of weight 0."""
    sums = weights.cumsum(dim=-1)
    return (sums <= chance[:, None] * sums[:, -1:]).sum(dim=-1).clamp(max=weights.shape[-1] - 1)


def sample(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    layout: Layout = "plain",
    progress: Callable[[int], None] = lambda _: None,
) -> list[Answer]:
    """One answer per prompt, in the order given. Name a prompt twice for two answers.

    The numbers an answer draws depend on the seed, its prompt and how often the prompt came before, not on the batch
    it is in, so that up to rounding the answer does not either. Batches are formed by prompt length, so the same call
    gives the same answers wherever it runs with the same thread count.

    Args:
        model: a policy, without gradients.
        tokenizer: of its lineage.
        prompts: what is answered.
        sampling: how.
        layout: the cheapest that `layout_of` the model allows.
        progress: told how many answers there are.
    """
    ids = [tuple(prompt_ids(tokenizer, p)) for p in prompts]
    chances = _chances(ids, sampling)
    ends = _end_tokens(model, tokenizer)
    answers: dict[int, Answer] = {}
    for batch in _batches(ids, sampling):
        completions: list[list[int]] = [[] for _ in batch]
        logps = [0.0] * len(batch)
        growing = _grow(model, tokenizer, [ids[i] for i in batch], chances[batch], sampling=sampling, layout=layout)
        for step in growing:
            for k, token, logp in step:
                completions[k].append(token)
                logps[k] += logp
        for i, completion, logp in zip(batch, completions, logps, strict=True):
            answers[i] = Answer(
                index=i,
                text=str(tokenizer.decode(completion, skip_special_tokens=True)).strip(),
                encoded=Encoded(ids[i], tuple(completion)),
                finished=bool(completion) and completion[-1] in ends,
                logp=logp,
            )
        progress(len(answers))
    return [answers[i] for i in range(len(prompts))]


def stream(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompt: Prompt, sampling: Sampling, *, layout: Layout = "plain"
) -> Iterator[str]:
    """The answer of `sample` to one prompt, in pieces as they are written. Spaces at its ends are not cut off.

    A piece ends where a character does: tokens that end inside one wait for the next.
    """
    ids = tuple(prompt_ids(tokenizer, prompt))
    written: list[int] = []
    told = ""
    for ((_, token, _),) in _grow(model, tokenizer, [ids], _chances([ids], sampling), sampling=sampling, layout=layout):
        written.append(token)
        text = str(tokenizer.decode(written, skip_special_tokens=True))
        if not text.endswith("\ufffd") and len(text) > len(told):
            yield text[len(told) :]
            told = text
    if len(text := str(tokenizer.decode(written, skip_special_tokens=True))) > len(told):
        yield text[len(told) :]


TOKENS_AT_ONCE = 16_384
"""Most tokens of a batch, prompts and answers, each row as long as the longest: of SmolLM2-135M, keys and values
of so many take 0.4 GB in bfloat16."""


def _batches(prompts: Sequence[tuple[int, ...]], sampling: Sampling) -> Iterator[list[int]]:
    """Indices of prompts of similar length, those of the same prompt together."""
    batch: list[int] = []
    for i in sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), prompts[i], i)):
        width = len(prompts[i]) + sampling.max_new_tokens
        if batch and (len(batch) == sampling.batch_size or (len(batch) + 1) * width > TOKENS_AT_ONCE):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _grow(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[tuple[int, ...]],
    chances: Tensor,
    *,
    sampling: Sampling,
    layout: Layout,
) -> Iterator[list[tuple[int, int, float]]]:
    """Tokens of answers to a batch of prompts, step by step, each with the place of its prompt and the log of its chance."""
    logps: dict[int, float] = {}

    def drawn(logits: Tensor, answers: list[int], step: int) -> list[int]:
        chance = chances[answers, step].to(logits.device)
        tokens, found = draw(logits, chance, temperature=sampling.temperature, top_p=sampling.top_p)
        logps.update(zip(answers, found.tolist(), strict=True))
        return tokens.tolist()

    growing = Growing(model, prompts, pad=pad_id(tokenizer), layout=layout, room=sampling.max_new_tokens)
    for step in growing.steps(drawn, _end_tokens(model, tokenizer), sampling.max_new_tokens):
        yield [(k, token, logps[k]) for k, token in step]


def _end_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    ends: Any = model.generation_config.eos_token_id
    listed: list[Any] = ends if isinstance(ends, list) else [ends]
    own: Any = tokenizer.eos_token_id
    return {e for e in (*listed, own) if e is not None}


def answer_seeds(prompts: Sequence[tuple[int, ...]], seed: int) -> Iterator[int]:
    """For each answer what its numbers start from: the seed, its prompt, and how often that came before."""
    before: Counter[tuple[int, ...]] = Counter()
    for prompt in prompts:
        text = f"{seed}|{before[prompt]}|{prompt}"
        before[prompt] += 1
        yield int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def _chances(prompts: Sequence[tuple[int, ...]], sampling: Sampling) -> Tensor:
    """What decides each token of each answer, in [0, 1); shape (prompts, max_new_tokens)."""
    return torch.stack(
        [
            torch.rand(sampling.max_new_tokens, generator=torch.Generator().manual_seed(each))
            for each in answer_seeds(prompts, sampling.seed)
        ]
    )
