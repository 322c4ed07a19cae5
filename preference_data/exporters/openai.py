"""OpenAI preference fine-tuning."""

from typing import Any

from preference_data.exporters.exporter import Exporter, answer, chat, winner_first
from preference_data.records import Comparison, Judgement


def _row(comparison: Comparison, judgement: Judgement, order: tuple[int, ...]) -> dict[str, Any]:
    settings = {"tools": [], "parallel_tool_calls": True} | judgement.extra.get("input", {})
    preferred, other = order
    return {
        "input": {"messages": chat(comparison.prompt.messages), **settings},
        "preferred_output": answer(comparison, preferred),
        "non_preferred_output": answer(comparison, other),
    }


OPENAI = Exporter("openai", winner_first, _row)
