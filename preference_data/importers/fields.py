"""Fields of a row as records; everything unfit is refused by the field's name."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

from preference_data.errors import RowRefused
from preference_data.importers.importer import Source
from preference_data.records import (
    ROLES,
    Comparison,
    Completion,
    Imported,
    Judgement,
    Message,
    Opinion,
    Pairwise,
    Prompt,
    Verdict,
)

SHOWN = 60
"""Characters of a faulty value that a message repeats."""

KINDS = {"bool": "boolean", "int": "number", "float": "number", "str": "text", "list": "list", "dict": "object"}
CHAT_ROLES: dict[str, str] = {role: role for role in ROLES}
MESSAGE_KEYS = {"role", "content", "from", "value"}
DECIDED = (Verdict.FIRST, Verdict.SECOND)


class Side(NamedTuple):
    """One answer, and the turns the file repeats before it."""

    before: tuple[Message, ...]
    answer: str


def refused(field: str, value: object, expected: str) -> RowRefused:
    """A refusal that names the field, what was given, what was expected and what to do."""
    if value is None:
        given = "nothing"
    elif isinstance(value, str) and not value.strip():
        given = "empty text"
    else:
        text = repr(value)
        given = f"{KINDS.get(type(value).__name__, '')} {text if len(text) <= SHOWN else text[:SHOWN] + '…'}"
    return RowRefused(f"{field}: got {given}; expected {expected}; correct the row or drop it")


def text(value: object, field: str) -> str:
    """Text that says something, word for word.

    Raises:
        RowRefused: missing, empty, or anything but text.
    """
    if not isinstance(value, str) or not value.strip():
        raise refused(field, value, "text")
    return value


def flag(value: object, field: str) -> bool:
    """A boolean; CSV files spell it out.

    Raises:
        RowRefused: anything else, 0 and 1 included.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    raise refused(field, value, "true or false")


def integer(value: object, field: str, *, low: int, high: int) -> int:
    """A whole number within bounds; 2.0 counts, since tables often hold nothing but floats.

    Raises:
        RowRefused: anything else.
    """
    fits = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
    if not fits or not low <= int(cast("float", value)) <= high:
        raise refused(field, value, f"a whole number from {low} to {high}")
    return int(cast("float", value))


def messages(
    value: object, field: str, *, keys: tuple[str, str] = ("role", "content"), roles: Mapping[str, str] = CHAT_ROLES
) -> tuple[Message, ...]:
    """A list of turns.

    Args:
        value: list of objects.
        field: name for refusals.
        keys: how the objects call the role and the text.
        roles: the file's words for roles, and ours.

    Raises:
        RowRefused: no list, an unknown role, or a turn whose content is not text.
    """
    given = cast("list[object]", value) if isinstance(value, list) else []
    if not given:
        raise refused(field, cast("object", value), "a list of messages")
    turns: list[Message] = []
    for i, turn in enumerate(given):
        if not isinstance(turn, dict):
            raise refused(f"{field}[{i}]", turn, "a message")
        message = cast("dict[str, object]", turn)
        role, content = (message.get(key) for key in keys)
        if not isinstance(role, str) or role not in roles:
            raise refused(f"{field}[{i}].{keys[0]}", role, f"one of {', '.join(roles)}")
        if not isinstance(content, str):
            raise refused(f"{field}[{i}].{keys[1]}", content, "text")
        turns.append(Message(roles[role], content))
    return tuple(turns)


def opening(value: object, field: str) -> tuple[Message, ...]:
    """A prompt given as text or as messages; its last turn says something.

    Raises:
        RowRefused: neither, or the last turn is empty.
    """
    if not isinstance(value, list):
        return (Message("user", text(value, field)),)
    turns = messages(cast("object", value), field)
    text(turns[-1].content, f"{field}[{len(turns) - 1}].content")
    return turns


def side(value: object, field: str) -> Side:
    """An answer given as text, as a message, or as messages that end with it.

    Raises:
        RowRefused: empty, not text, or the last turn is not the assistant's.
    """
    if not isinstance(value, list | dict):
        return Side((), text(value, field))
    turns = messages(cast("object", [value] if isinstance(value, dict) else value), field)
    if turns[-1].role != "assistant":
        raise refused(field, turns[-1].role, "an assistant turn at the end")
    return Side(turns[:-1], text(turns[-1].content, field))


def shared(stated: tuple[Message, ...], first: Side, second: Side) -> Prompt:
    """The prompt two sides answer: what the row states, and what both sides repeat or add.

    Raises:
        RowRefused: the sides go back to different prompts, or the prompt is none.
    """
    if first.before != second.before:
        turn = next(
            (i for i, (a, b) in enumerate(zip(first.before, second.before, strict=False)) if a != b),
            min(len(first.before), len(second.before)),
        )
        raise RowRefused(
            f"prompts differ: the two sides part at turn {turn + 1}, before their answers; "
            "expected one prompt; keep the turns both share, or drop the row"
        )
    repeats = first.before[: len(stated)] == stated
    return Prompt(first.before if repeats else stated + first.before)


def compare(
    source: Source,
    prompt: Prompt,
    answers: Sequence[str],
    *,
    policies: Sequence[str] = (),
    slices: Mapping[str, str] | None = None,
) -> Comparison:
    """A comparison of imported answers.

    Args:
        source: the file.
        prompt: what is answered.
        answers: texts, first to last.
        policies: who wrote each, as the file says; none if it does not.
        slices: slice names and values.

    Raises:
        RowRefused: an answer is empty.
    """
    writers = policies or [""] * len(answers)
    completions = tuple(Completion(a, Imported(source.name, w)) for a, w in zip(answers, writers, strict=True))
    return Comparison(prompt, completions, source.name, slices or {})


def judge(
    source: Source,
    comparison: Comparison,
    opinion: Opinion,
    *,
    annotator: str = "",
    rationale: str = "",
    at: datetime | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Judgement:
    """What the file says about a comparison.

    Args:
        source: the file.
        comparison: what is judged.
        opinion: what is said of it.
        annotator: handle; empty where the file names nobody.
        rationale: the annotator's reason.
        at: when, UTC; None where the row does not say.
        extra: facts without a field.

    Raises:
        RowRefused: one of two equal answers is called better.
    """
    if isinstance(opinion, Pairwise) and opinion.verdict in DECIDED:
        first, second = (c.text for c in comparison.completions)
        if first == second:
            raise RowRefused("chosen and rejected are the same text; expected two answers; drop the row")
    return Judgement(
        comparison=comparison.key,
        annotator=annotator or source.annotator,
        opinion=opinion,
        at=at or source.at,
        rationale=rationale,
        extra=extra or {},
    )


def rest(row: Mapping[str, Any], *used: str) -> dict[str, Any]:
    """What no record has a field for: fields not used, and messages that carry more than a role and a text."""

    def beyond(value: object) -> bool:
        turns = cast("list[object]", value) if isinstance(value, list) else [value]
        return any(
            turn.get(key) is not None
            for turn in (cast("dict[str, object]", t) for t in turns if isinstance(t, dict))
            for key in turn.keys() - MESSAGE_KEYS
        )

    return {k: v for k, v in row.items() if v is not None and (k not in used or beyond(v))}


def moment(value: object, field: str) -> datetime:
    """A time given as seconds since 1970 or in ISO 8601; without a zone it is taken as UTC.

    Raises:
        RowRefused: neither.
    """
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        given = datetime.fromisoformat(text(value, field))
    except (ValueError, OverflowError, OSError) as error:
        raise refused(field, value, "seconds since 1970, or a time such as 2026-01-31T12:00:00Z") from error
    return given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)
