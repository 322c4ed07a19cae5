"""LLaMA-Factory: ShareGPT preference (`conversations`, `chosen`, `rejected`) and KTO (`messages`, `label`)."""

from typing import Any

from preference_data.importers.fields import compare, flag, judge, messages, refused, rest, side, text
from preference_data.importers.importer import Importer, Source
from preference_data.records import Message, Pairwise, Prompt, Thumb, Verdict
from preference_data.store import Entry

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "observation": "tool",
    "tool": "tool",
}


def _is_preference(row: dict[str, Any]) -> bool:
    return {"conversations", "chosen", "rejected"} <= row.keys()


def _is_kto(row: dict[str, Any]) -> bool:
    return {"messages", "label"} <= row.keys()


def _answer(row: dict[str, Any], field: str) -> str:
    turn = messages([row.get(field)], field, keys=("from", "value"), roles=ROLES)[0]
    if turn.role != "assistant":
        raise refused(f"{field}.from", turn.role, "gpt")
    return text(turn.content, f"{field}.value")


def preference(row: dict[str, Any], source: Source) -> list[Entry]:
    """Turns are `{from, value}`; an optional `system` field is the first turn."""
    turns = messages(row.get("conversations"), "conversations", keys=("from", "value"), roles=ROLES)
    if row.get("system"):
        turns = (Message("system", text(row["system"], "system")), *turns)
    comparison = compare(source, Prompt(turns), (_answer(row, "chosen"), _answer(row, "rejected")))
    extra = rest(row, "conversations", "chosen", "rejected", "system")
    return [Entry(comparison, (judge(source, comparison, Pairwise(Verdict.FIRST), extra=extra),))]


def kto(row: dict[str, Any], source: Source) -> list[Entry]:
    """`messages` end with the answer; `label` says whether it is good."""
    whole = side(row.get("messages"), "messages")
    comparison = compare(source, Prompt(whole.before), (whole.answer,))
    opinion = Thumb(flag(row.get("label"), "label"))
    return [Entry(comparison, (judge(source, comparison, opinion, extra=rest(row, "messages", "label")),))]


PREFERENCE = Importer("sharegpt", _is_preference, preference)
KTO = Importer("messages-label", _is_kto, kto)
