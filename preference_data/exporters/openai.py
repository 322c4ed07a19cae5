"""OpenAI preference fine-tuning."""

from typing import Any, cast

from preference_data.exporters.exporter import Exporter, answer, chat, winner_first
from preference_data.importers.openai import DEFAULTS
from preference_data.records import Comparison, Judgement


def _row(comparison: Comparison, judgement: Judgement, order: tuple[int, ...]) -> dict[str, Any]:
    given = judgement.extra.get("input")  # where the importer keeps tools and other settings
    settings = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    preferred, other = order
    return {
        "input": DEFAULTS | settings | {"messages": chat(comparison.prompt.messages)},
        "preferred_output": answer(comparison, preferred),
        "non_preferred_output": answer(comparison, other),
    }


OPENAI = Exporter("openai", winner_first, _row)
