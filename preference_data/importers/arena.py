"""Chatbot Arena votes: two named models, a conversation with each, and a winner, a tie, or both bad."""

from typing import Any

from preference_data.importers.fields import Side, compare, judge, moment, refused, rest, shared, side, text
from preference_data.importers.importer import Importer, Source
from preference_data.records import Pairwise, Verdict
from preference_data.store import Entry

WINNERS = {
    "model_a": Verdict.FIRST,
    "model_b": Verdict.SECOND,
    "tie": Verdict.TIE,
    "tie (bothbad)": Verdict.NEITHER,
}
USED = ("model_a", "model_b", "winner", "conversation_a", "conversation_b", "judge", "language", "tstamp")


def _sniff(row: dict[str, Any]) -> bool:
    return {"winner", "conversation_a", "conversation_b"} <= row.keys()


def _conversation(row: dict[str, Any], field: str) -> Side:
    if not isinstance(row.get(field), list):
        raise refused(field, row.get(field), "a list of messages")
    return side(row[field], field)


def convert(row: dict[str, Any], source: Source) -> list[Entry]:
    """Votes after several turns have two prompts, one per model, and are refused."""
    first, second = _conversation(row, "conversation_a"), _conversation(row, "conversation_b")
    winner = row.get("winner")
    if not isinstance(winner, str) or winner not in WINNERS:
        raise refused("winner", winner, f"one of {', '.join(WINNERS)}")
    policies = [text(row.get(name), name) for name in ("model_a", "model_b")]
    language = row.get("language")
    comparison = compare(
        source,
        shared((), first, second),
        (first.answer, second.answer),
        policies=policies,
        slices={"language": language} if isinstance(language, str) and language else {},
    )
    judgement = judge(
        source,
        comparison,
        Pairwise(WINNERS[winner]),
        annotator=str(row.get("judge") or ""),
        at=moment(row["tstamp"], "tstamp") if row.get("tstamp") is not None else None,
        extra=rest(row, *USED),
    )
    return [Entry(comparison, (judgement,))]


ARENA = Importer("arena", _sniff, convert)
