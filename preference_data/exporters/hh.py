"""HH-RLHF transcripts."""

from typing import Any

from preference_data.exporters.exporter import Exporter, winner_first
from preference_data.importers.hh import ROLES
from preference_data.records import Comparison, Judgement, Message

_LABELS = {role: label for label, role in ROLES.items()}


def _order(comparison: Comparison, judgement: Judgement) -> tuple[int, ...]:
    known = all(message.role in _LABELS for message in comparison.prompt.messages)
    return winner_first(comparison, judgement) if known else ()


def _row(comparison: Comparison, _: Judgement, order: tuple[int, ...]) -> dict[str, Any]:
    better, worse = (
        _transcript((*comparison.prompt.messages, Message("assistant", comparison.completions[k].text))) for k in order
    )
    return {"chosen": better, "rejected": worse}


def _transcript(messages: tuple[Message, ...]) -> str:
    return "".join(f"\n\n{_LABELS[message.role]}: {message.content}" for message in messages)


HH = Exporter("hh", _order, _row)
