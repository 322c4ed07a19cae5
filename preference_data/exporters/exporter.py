"""What an exporter is."""

from collections.abc import Callable
from typing import Any, NamedTuple

from preference_data.records import Comparison, Judgement, Message, Pairwise, Verdict


class Exporter(NamedTuple):
    """A public format that an importer of the same name reads back.

    Attributes:
        name: the importer's name.
        order: for each answer a row would hold, best first, its index in the comparison; empty if the format cannot
            carry such a judgement.
        row: the row for a comparison's answers in that order.
    """

    name: str
    order: Callable[[Comparison, Judgement], tuple[int, ...]]
    row: Callable[[Comparison, Judgement, tuple[int, ...]], dict[str, Any]]


def winner_first(comparison: Comparison, judgement: Judgement) -> tuple[int, ...]:
    """Order of a pair's answers, winner first; empty for what names no winner."""
    match judgement.opinion:
        case Pairwise(Verdict.FIRST) if len(comparison.completions) == 2:
            return (0, 1)
        case Pairwise(Verdict.SECOND) if len(comparison.completions) == 2:
            return (1, 0)
        case _:
            return ()


def chat(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    """Turns as the chat formats have them."""
    return [message._asdict() for message in messages]


def answer(comparison: Comparison, index: int) -> list[dict[str, str]]:
    """One completion as the assistant's turn."""
    return chat((Message("assistant", comparison.completions[index].text),))
