"""The project's own prompts and items, as package data."""

import json
from importlib.resources import files
from typing import Any, NamedTuple

from preference_data.records import digest


class SamplePrompt(NamedTuple):
    """A short everyday prompt to answer."""

    text: str
    domain: str


class ChoiceItem(NamedTuple):
    """A question to be continued by one of four options; `answer` is the index of the right one."""

    question: str
    options: tuple[str, ...]
    answer: int
    domain: str

    @property
    def key(self) -> str:
        """Content id."""
        return digest([self.question, list(self.options)])[:16]


class RefusalPrompt(NamedTuple):
    """A request that sounds alarming. `label` is `safe` where it should be answered and `unsafe` where it should not."""

    text: str
    label: str

    @property
    def key(self) -> str:
        """Content id."""
        return digest(self.text)[:16]


def prompts() -> list[SamplePrompt]:
    """Everyday prompts of the demo, each answerable in some fifty tokens."""
    return [SamplePrompt(row["text"], row["domain"]) for row in _rows("prompts.jsonl")]


def choice_items() -> list[ChoiceItem]:
    """Multiple-choice items, scored by the log-probability of each option after the question."""
    return [
        ChoiceItem(row["question"], tuple(row["options"]), row["answer"], row["domain"])
        for row in _rows("choice.jsonl")
    ]


def refusal_prompts() -> list[RefusalPrompt]:
    """Requests that probe refusal, safe and unsafe ones."""
    return [RefusalPrompt(row["text"], row["label"]) for row in _rows("refusal_prompts.jsonl")]


def _rows(name: str) -> list[dict[str, Any]]:
    text = files(__name__).joinpath(name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
