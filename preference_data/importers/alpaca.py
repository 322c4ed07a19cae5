"""LLaMA-Factory's alpaca preference: `instruction`, `input`, `chosen`, `rejected`, optional `system` and `history`."""

from typing import Any, cast

from preference_data.importers.fields import compare, judge, refused, rest, side, text
from preference_data.importers.importer import Importer, Source
from preference_data.records import Message, Pairwise, Prompt, Verdict
from preference_data.store import Entry

FIELDS = ("instruction", "input", "chosen", "rejected", "system", "history")


def _sniff(row: dict[str, Any]) -> bool:
    return {"instruction", "chosen", "rejected"} <= row.keys()


def _history(value: object) -> list[Message]:
    """Earlier turns, as pairs of what was asked and what was answered."""
    turns: list[Message] = []
    if not isinstance(value, list):
        raise refused("history", value, "a list of questions and answers")
    for i, pair in enumerate(cast("list[object]", value)):
        given = cast("list[object]", pair) if isinstance(pair, list) else []
        if len(given) != 2:
            raise refused(f"history[{i}]", cast("object", pair), "a question and its answer")
        asked, answered = (text(said, f"history[{i}]") for said in given)
        turns += [Message("user", asked), Message("assistant", answered)]
    return turns


def convert(row: dict[str, Any], source: Source) -> list[Entry]:
    """`input` is a second part of the instruction and may be empty; LLaMA-Factory joins them by a line break."""
    asked = text(row.get("instruction"), "instruction")
    if row.get("input"):
        asked += "\n" + text(row["input"], "input")
    before = [Message("system", text(row["system"], "system"))] if row.get("system") else []
    before += _history(row["history"]) if row.get("history") else []
    answers = [side(row.get(name), name).answer for name in ("chosen", "rejected")]
    comparison = compare(source, Prompt((*before, Message("user", asked))), answers)
    extra = rest(row, *FIELDS)
    return [Entry(comparison, (judge(source, comparison, Pairwise(Verdict.FIRST), extra=extra),))]


ALPACA = Importer("alpaca", _sniff, convert)
