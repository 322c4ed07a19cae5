"""Records as rows of the store and back. No SQL."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from preference_data.records import (
    Comparison,
    Completion,
    Judgement,
    Message,
    Prompt,
    Written,
    canonical_json,
    digest,
    opinion_as_json,
    opinion_from_json,
    origin_as_json,
    origin_from_json,
)
from preference_data.schema import ascii_json

FIRST_HASH = "0" * 64
_CHAINED = (
    "seq",
    "key",
    "comparison",
    "annotator",
    "kind",
    "opinion",
    "rationale",
    "edit",
    "extra",
    "flags",
    "shown_order",
    "guideline",
    "supersedes",
    "at",
    "stored_at",
    "prev_hash",
)


class Entry(NamedTuple):
    """A comparison and what was said about it."""

    comparison: Comparison
    judgements: tuple[Judgement, ...]


Remember = Callable[[str], str]
"""Takes a text to be stored; gives its digest."""


class Texts:
    """Texts to be stored, by digest."""

    def __init__(self) -> None:
        """None yet."""
        self._bodies: dict[str, str] = {}

    def remember(self, body: str) -> str:
        """Take a text in; its digest stands for it in all rows."""
        name = digest(body)
        self._bodies[name] = body
        return name

    def rows(self) -> list[dict[str, str]]:
        """One row per text, in the order of the index, so that neighbours in it are written together."""
        return [{"digest": name, "body": body} for name, body in sorted(self._bodies.items())]


def prompt_row(prompt: Prompt, key: str, remember: Remember) -> dict[str, Any]:
    """A conversation, its texts by digest."""
    return {"key": key, "turns": [[role, remember(content)] for role, content in prompt.messages]}


def completion_rows(
    completions: Iterable[Completion], comparison: int, remember: Remember, annotators: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Answers in order. A writer is kept by number, as every annotator is, so that the handle can be erased."""
    rows: list[dict[str, Any]] = []
    for position, completion in enumerate(completions):
        origin = origin_as_json(completion.origin)
        writer = annotators[origin.pop("annotator")] if isinstance(completion.origin, Written) else None
        rows.append(
            {
                "comparison": comparison,
                "position": position,
                "text": remember(completion.text),
                "origin": origin,
                "writer": writer,
            }
        )
    return rows


def judgement_row(judgement: Judgement, key: str, remember: Remember) -> dict[str, Any]:
    """What a judgement says. The store adds who, about what, its number and its place in the chain."""
    opinion = opinion_as_json(judgement.opinion)
    return {
        "key": key,
        "kind": opinion["kind"],
        "opinion": opinion,
        "rationale": remember(judgement.rationale) if judgement.rationale else None,
        "edit": remember(judgement.edit) if judgement.edit else None,
        "extra": remember(canonical_json(dict(judgement.extra))) if judgement.extra else None,
        "flags": list(judgement.flags),
        "shown_order": list(judgement.shown_order),
        "guideline": judgement.guideline,
        "supersedes": judgement.supersedes,
        "at": judgement.at,
    }


def chain_hash(row: Mapping[Any, Any]) -> str:
    """The hash of a judgement's row and of the one before it.

    It covers digests and numbers, never a text or a handle, so that erasing those leaves the chain whole.
    """
    values = [row[column] for column in _CHAINED]
    plain = [value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value for value in values]
    return hashlib.sha256(ascii_json(plain).encode()).hexdigest()


def text_digests(turns: Iterable[Any], judgements: Iterable[Any]) -> set[str]:
    """Every text that conversations and judgements refer to."""
    found = {name for prompt in turns for _, name in prompt}
    said = {name for row in judgements for name in (row.rationale, row.edit, row.extra) if name}
    return found | said


def comparison_from(row: Any, completions: Iterable[Any], texts: Mapping[str, str]) -> Comparison | None:
    """The record of a comparison's row and its answers' rows with their texts; None where one was erased."""
    answers: list[Completion] = []
    for each in completions:
        if each.body is None:
            return None
        origin = each.origin if each.writer is None else each.origin | {"annotator": each.handle}
        answers.append(Completion(each.body, origin_from_json(origin)))
    prompt = prompt_from(row.turns, texts)
    return Comparison(prompt, tuple(answers), row.source, row.slices) if prompt else None


def prompt_from(turns: Iterable[Any], texts: Mapping[str, str]) -> Prompt | None:
    """The record of a conversation; None where a text of it was erased."""
    turns = list(turns)
    if any(name not in texts for _, name in turns):
        return None
    return Prompt(tuple(Message(role, texts[name]) for role, name in turns))


def judgement_from(row: Any, comparison: str, texts: Mapping[str, str]) -> Judgement:
    """The record of a judgement's row. What was erased of its words is empty."""
    return Judgement(
        comparison=comparison,
        annotator=row.handle,
        opinion=opinion_from_json(row.opinion),
        at=row.at,
        rationale=texts.get(row.rationale, ""),
        edit=texts.get(row.edit, ""),
        flags=tuple(row.flags),
        shown_order=tuple(row.shown_order),
        guideline=row.guideline,
        supersedes=row.supersedes,
        extra=json.loads(texts[row.extra]) if row.extra in texts else {},
    )
