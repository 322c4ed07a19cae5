"""Prompts to be answered, from a file people write."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

from preference_data.errors import InputRefused, RowRefused
from preference_data.importers.fields import opening
from preference_data.reading import rows
from preference_data.records import Prompt
from preference_data.streams import Refusal

EXPECTED = 'a row with "prompt" (text, or a list of messages), such as {"prompt": "Why is the sky blue?"}'


class PromptRow(NamedTuple):
    """A prompt and what it belongs to."""

    prompt: Prompt
    slices: dict[str, str]


def read_prompts(path: Path) -> list[PromptRow]:
    """Prompts of a file: text with one per line, or any file of rows that imports take.

    Args:
        path: `.txt`, or rows with `prompt` or `messages` and, where wanted, an object `slices`.

    Raises:
        InputRefused: the file or a row of it is no prompt; names file and line.
    """
    if path.suffix == ".txt":
        return list(_lines(path))
    found: list[PromptRow] = []
    for row in rows(path):
        if isinstance(row.value, Refusal):
            raise InputRefused(f"{path.name}, line {row.line}: {row.value.reason}")
        found.append(_prompt(row.value, f"{path.name}, line {row.line}"))
    return found


def _lines(path: Path) -> Iterator[PromptRow]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise InputRefused(f"{path.name}: cannot be read as UTF-8 text ({error}); check the path") from error
    given = [line.strip() for line in lines if line.strip()]
    if not given:
        raise InputRefused(f"{path.name}: no prompts; expected one per line")
    return (PromptRow(Prompt.of(line), {}) for line in given)


def _prompt(row: dict[str, Any], where: str) -> PromptRow:
    field = "prompt" if "prompt" in row else "messages"
    if field not in row:
        raise InputRefused(f"{where}: fields {', '.join(sorted(row))}; expected {EXPECTED}")
    slices: object = row.get("slices") or {}
    if not isinstance(slices, dict):
        raise InputRefused(f"{where}: slices: got {slices!r}; expected an object of names and values")
    try:
        prompt = Prompt(opening(row[field], field))
    except RowRefused as error:
        raise InputRefused(f"{where}: {error}") from error
    named = cast("dict[str, object]", slices)
    return PromptRow(prompt, {name: str(value) for name, value in named.items()})
