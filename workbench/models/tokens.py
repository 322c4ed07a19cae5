"""From conversations to token ids, in one way for scoring, training and sampling."""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from preference_data.records import Message, Pair, Prompt


class Encoded(NamedTuple):
    """A prompt and one completion as token ids; together they are what the model reads.

    Attributes:
        prompt: ids up to where the completion begins, the generation prompt included.
        completion: ids of the answer with the template's closing tokens.
    """

    prompt: tuple[int, ...]
    completion: tuple[int, ...]


class EncodedPair(NamedTuple):
    """Both answers of one pair, with the prompt they share."""

    chosen: Encoded
    rejected: Encoded


def encode_pair(tokenizer: PreTrainedTokenizerBase, pair: Pair, *, max_length: int) -> EncodedPair | None:
    """Both answers of a pair under the chat template, each cut at the end to `max_length`.

    The completions begin where the rendered prompt and a rendered whole first diverge, so that a template that
    renders both differently, or a token that spans the border, is counted in the answers; the prompt is the same on
    both sides.

    Returns:
        The ids, or None where the prompt alone fills `max_length`.
    """
    start = prompt_ids(tokenizer, pair.prompt)
    wholes = [
        _render(tokenizer, [*pair.prompt.messages, Message("assistant", answer)], generation_prompt=False)
        for answer in (pair.chosen, pair.rejected)
    ]
    border = max(1, min(_common_prefix(start, whole) for whole in wholes))  # nothing predicts the first token
    if border >= max_length:
        return None
    prompt = tuple(wholes[0][:border])
    return EncodedPair(*(Encoded(prompt, tuple(whole[border:max_length])) for whole in wholes))


FEWEST_READ = 16


def encode_answer(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, text: str, *, max_length: int) -> Encoded:
    """One answer, as `encode_pair` encodes each of two; of an answer to a prompt that fills `max_length`, `FEWEST_READ` tokens."""
    pair = Pair(prompt, text, text, 1.0, None, (), {}, "train")
    both = encode_pair(tokenizer, pair, max_length=max_length)
    if both is None:
        both = encode_pair(tokenizer, pair, max_length=len(prompt_ids(tokenizer, prompt)) + FEWEST_READ)
    assert both is not None  # the prompt is shorter than that
    return both.chosen


def encode_text(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str) -> Encoded:
    """Plain text without chat template; the completion begins where the two tokenisations diverge."""
    first = beginning(tokenizer)
    start = [*first, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    whole = [*first, *tokenizer(prompt + completion, add_special_tokens=False)["input_ids"]]
    border = max(1, _common_prefix(start, whole))  # nothing predicts the first token
    return Encoded(tuple(whole[:border]), tuple(whole[border:]))


def beginning(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What a tokenizer puts before a text by itself; models that were trained with it are at a loss without it."""
    given: Any = tokenizer("")["input_ids"]
    return list(given[:1]) if given and given[0] == tokenizer.bos_token_id else []


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Token ids of a prompt, ready for an answer to be sampled."""
    return _render(tokenizer, prompt.messages, generation_prompt=True)


def leaves_room(tokenizer: PreTrainedTokenizerBase, config: Any, max_new_tokens: int) -> Callable[[Prompt], bool]:
    """Whether a model of some configuration has positions for a prompt and an answer to it."""
    most = longest_prompt(config, max_new_tokens)
    return lambda prompt: len(prompt_ids(tokenizer, prompt)) <= most


def longest_prompt(config: Any, max_new_tokens: int) -> float:
    """Tokens a prompt may have so that a model of some configuration has positions for an answer to it."""
    positions = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None) or math.inf
    return positions - max_new_tokens


def example_key(tokenizer_digest: str, encoded: Encoded) -> str:
    """Content id of what the model reads: tokenizer, prompt ids, completion ids."""
    text = f"{tokenizer_digest}|{','.join(map(str, encoded.prompt))}|{','.join(map(str, encoded.completion))}"
    return hashlib.sha256(text.encode()).hexdigest()


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the token that fills rows; never attended to, so it may be the end token."""
    return int(tokenizer.pad_token_id)  # pyright: ignore[reportArgumentType] - typed as one id or many


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, generation_prompt: bool) -> list[int]:
    turns = [{"role": m.role, "content": m.content} for m in messages]
    # Text people wrote must not be able to close a turn and open another: control tokens in it become plain text.
    encoded: Any = tokenizer.apply_chat_template(
        turns, tokenize=True, add_generation_prompt=generation_prompt, sanitize_control_tokens=True, return_dict=True
    )
    return list(encoded["input_ids"])


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    for i, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return i
    return min(len(first), len(second))
