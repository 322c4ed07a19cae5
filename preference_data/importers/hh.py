"""Transcripts with labelled turns: HH-RLHF (`chosen`, `rejected` whole) and `query`, `chosen`, `rejected`.

The labels are the format's only borders, so an answer that holds one is ambiguous, and so are two turns in a row by
the same speaker: such rows are refused, not guessed at.
"""

import re
from collections.abc import Sequence
from typing import Any

from preference_data.errors import RowRefused
from preference_data.importers.fields import Side, compare, judge, opening, rest, shared, text
from preference_data.importers.importer import Importer, Source
from preference_data.records import Message, Pairwise, Prompt, Verdict
from preference_data.store import Entry

ROLES = {"Human": "user", "Assistant": "assistant"}
WHOLE_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
QUERY_TURN = re.compile(r"(?:^|\n)(Human|Assistant):")
LABEL = re.compile(r"\b(Human|Assistant):")
PREFIX = "Assistant:"


def _is_whole(row: dict[str, Any]) -> bool:
    starts = [str(row.get(name, "")).startswith("\n\nHuman:") for name in ("chosen", "rejected")]
    return any(starts) and row.get("prompt") is None


def _is_query(row: dict[str, Any]) -> bool:
    return {"query", "chosen", "rejected"} <= row.keys()


def transcript(row: dict[str, Any], source: Source) -> list[Entry]:
    """`chosen` and `rejected` are whole transcripts that part at the last answer."""
    sides = [_last_turn(text(row.get(name), name), name) for name in ("chosen", "rejected")]
    return _entry(shared((), *sides), (sides[0].answer, sides[1].answer), row, source)


def query(row: dict[str, Any], source: Source) -> list[Entry]:
    """`query` is a prompt or a transcript; after a transcript the answers begin with `Assistant:`."""
    asked = text(row.get("query"), "query")
    answers = [text(row.get(name), name) for name in ("chosen", "rejected")]
    if not QUERY_TURN.match(asked):
        return _entry(Prompt(opening(asked, "query")), answers, row, source)
    for name, answer in zip(("chosen", "rejected"), answers, strict=True):
        if not answer.startswith(PREFIX):
            raise RowRefused(
                f"{name}: lacks the prefix {PREFIX!r} and begins {answer[:30]!r}; expected an answer to the query, "
                "this one is probably cut off; restore it or drop the row"
            )
    said = [_answer(a.removeprefix(PREFIX), name) for name, a in zip(("chosen", "rejected"), answers, strict=True)]
    return _entry(Prompt(_turns(asked, QUERY_TURN, "query")), said, row, source)


def _entry(prompt: Prompt, answers: Sequence[str], row: dict[str, Any], source: Source) -> list[Entry]:
    comparison = compare(source, prompt, answers)
    extra = rest(row, "query", "chosen", "rejected")
    return [Entry(comparison, (judge(source, comparison, Pairwise(Verdict.FIRST), extra=extra),))]


def _last_turn(whole: str, field: str) -> Side:
    turns = _turns(whole, WHOLE_TURN, field)
    if turns[-1].role != "assistant":
        raise RowRefused(f"{field}: ends with a Human turn; expected the Assistant's answer; complete or drop the row")
    return Side(turns[:-1], _answer(turns[-1].content, field))


def _answer(answer: str, field: str) -> str:
    if label := LABEL.search(answer):
        raise RowRefused(
            f"{field}: the answer holds the turn label {label[0]!r}; expected one turn; cut the answer or drop the row"
        )
    return text(answer, field).strip()


def _turns(whole: str, border: re.Pattern[str], field: str) -> tuple[Message, ...]:
    """Labelled turns without their labels and surrounding blanks; Human first, then in turn."""
    before, *parts = border.split(whole)
    if before.strip() or not parts:
        raise RowRefused(f"{field}: begins {whole[:30]!r}; expected 'Human:'; restore the label or drop the row")
    turns = tuple(Message(ROLES[label], said.strip()) for label, said in zip(parts[::2], parts[1::2], strict=True))
    for i, turn in enumerate(turns):
        expected = "assistant" if i % 2 else "user"
        if turn.role != expected:
            raise RowRefused(
                f"{field}: turn {i + 1} is the {turn.role}'s again; expected Human and Assistant in turn, Human first; "
                "join the two turns or drop the row"
            )
    return turns


TRANSCRIPT = Importer("hh", _is_whole, transcript)
QUERY = Importer("query-chosen-rejected", _is_query, query)
