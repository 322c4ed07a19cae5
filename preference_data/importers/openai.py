"""OpenAI preference fine-tuning (Azure, Fireworks and Together take the same).

Shape: `{"input": {"messages": […], "tools": [], "parallel_tool_calls": true}, "preferred_output": […],
"non_preferred_output": […]}`.
"""

from typing import Any, cast

from preference_data.importers.fields import compare, judge, opening, refused, rest, shared, side
from preference_data.importers.importer import Importer, Source
from preference_data.records import Pairwise, Verdict
from preference_data.store import Entry

DEFAULTS: dict[str, Any] = {"tools": [], "parallel_tool_calls": True}


def _sniff(row: dict[str, Any]) -> bool:
    return {"input", "preferred_output", "non_preferred_output"} <= row.keys()


def convert(row: dict[str, Any], source: Source) -> list[Entry]:
    """Tools and other settings of `input` stay in `extra`, unless they say nothing."""
    given = row.get("input")
    if not isinstance(given, dict):
        raise refused("input", given, "an object with messages")
    settings = cast("dict[str, Any]", given)
    stated = opening(settings.get("messages") or [], "input.messages")
    preferred = side(row.get("preferred_output"), "preferred_output")
    other = side(row.get("non_preferred_output"), "non_preferred_output")
    comparison = compare(source, shared(stated, preferred, other), (preferred.answer, other.answer))
    spoken = {k: v for k, v in rest(settings, "messages").items() if k not in DEFAULTS or v != DEFAULTS[k]}
    extra = rest(row, "input", "preferred_output", "non_preferred_output")
    extra = {k: v for k, v in extra.items() if k != "input"} | ({"input": spoken} if spoken else {})
    return [Entry(comparison, (judge(source, comparison, Pairwise(Verdict.FIRST), extra=extra),))]


OPENAI = Importer("openai", _sniff, convert)
