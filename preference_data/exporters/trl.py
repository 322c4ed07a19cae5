"""TRL, always conversational: one column type for single and many turns, as `datasets` needs it."""

from typing import Any

from preference_data.exporters.exporter import Exporter, answer, chat, winner_first
from preference_data.records import Comparison, Judgement, Thumb


def _preference(comparison: Comparison, judgement: Judgement, order: tuple[int, ...]) -> dict[str, Any]:
    del judgement  # the order says it all
    chosen, rejected = order
    return {
        "prompt": chat(comparison.prompt.messages),
        "chosen": answer(comparison, chosen),
        "rejected": answer(comparison, rejected),
    }


def _only_answer(comparison: Comparison, judgement: Judgement) -> tuple[int, ...]:
    return (0,) if isinstance(judgement.opinion, Thumb) and len(comparison.completions) == 1 else ()


def _unpaired(comparison: Comparison, judgement: Judgement, order: tuple[int, ...]) -> dict[str, Any]:
    return {
        "prompt": chat(comparison.prompt.messages),
        "completion": answer(comparison, order[0]),
        "label": judgement.opinion == Thumb(up=True),
    }


PREFERENCE = Exporter("trl-preference", winner_first, _preference)
UNPAIRED = Exporter("trl-unpaired", _only_answer, _unpaired)
