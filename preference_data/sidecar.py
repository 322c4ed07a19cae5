"""The file beside an export that holds what the format could not carry, so that importing both restores the records.

`NAME.sidecar.jsonl` begins with a header (format, SHA-256 of the file it belongs to). Then, in the order of the
export: `row` lines, the facts missing from one row of the file; and `entry` lines, records the file does not have.
"""

import hashlib
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from preference_data.errors import InputRefused, RowRefused
from preference_data.records import (
    Comparison,
    Completion,
    Judgement,
    Message,
    Prompt,
    opinion_as_json,
    opinion_from_json,
    origin_as_json,
    origin_from_json,
)
from preference_data.store import Entry

VERSION = 1
SUFFIX = ".sidecar.jsonl"


class Header(NamedTuple):
    """First line of a sidecar; of constant length for one format, since it is written last."""

    format: str
    sha256: str

    @property
    def line(self) -> str:
        """The header as it stands in the file."""
        return json.dumps({"sidecar": VERSION, "format": self.format, "sha256": self.sha256}) + "\n"


def beside(path: Path) -> Path:
    """Where the sidecar of a file lies."""
    return path.with_name(path.name + SUFFIX)


def judgement_as_json(judgement: Judgement) -> dict[str, Any]:
    """A judgement as plain JSON values, without the comparison it belongs to."""
    return {
        "annotator": judgement.annotator,
        "opinion": opinion_as_json(judgement.opinion),
        "at": judgement.at.isoformat(),
        "rationale": judgement.rationale,
        "edit": judgement.edit,
        "flags": list(judgement.flags),
        "shown_order": list(judgement.shown_order),
        "guideline": judgement.guideline,
        "supersedes": judgement.supersedes,
        "extra": dict(judgement.extra),
    }


def judgement_from_json(value: dict[str, Any], comparison: Comparison) -> Judgement:
    """The inverse of `judgement_as_json`, for a comparison."""
    changed: dict[str, Any] = {
        "opinion": opinion_from_json(value["opinion"]),
        "at": datetime.fromisoformat(value["at"]),
        "flags": tuple(value["flags"]),
        "shown_order": tuple(value["shown_order"]),
    }
    return Judgement(**(value | changed), comparison=comparison.key)


def entry_as_json(entry: Entry) -> dict[str, Any]:
    """A comparison with its judgements as plain JSON values."""
    comparison = entry.comparison
    return {
        "prompt": [list(message) for message in comparison.prompt.messages],
        "completions": [{"text": c.text, "origin": origin_as_json(c.origin)} for c in comparison.completions],
        "source": comparison.source,
        "slices": dict(comparison.slices),
        "judgements": [judgement_as_json(judgement) for judgement in entry.judgements],
    }


def entry_from_json(value: dict[str, Any]) -> Entry:
    """The inverse of `entry_as_json`."""
    comparison = Comparison(
        Prompt(tuple(Message(*message) for message in value["prompt"])),
        tuple(Completion(c["text"], origin_from_json(c["origin"])) for c in value["completions"]),
        value["source"],
        value["slices"],
    )
    return Entry(comparison, tuple(judgement_from_json(j, comparison) for j in value["judgements"]))


def facts(comparison: Comparison, judgement: Judgement, *, order: tuple[int, ...]) -> dict[str, Any]:
    """What a row leaves out.

    Args:
        comparison: the comparison judged.
        judgement: the judgement the row stands for.
        order: for each answer of the row, best first, its index in the comparison.
    """
    return {
        "order": list(order),
        "source": comparison.source,
        "slices": dict(comparison.slices),
        "origins": [origin_as_json(completion.origin) for completion in comparison.completions],
        "judgement": judgement_as_json(judgement),
    }


def with_facts(entry: Entry, value: dict[str, Any]) -> Entry:
    """A row as the importer read it, put back to the records it was exported from."""
    texts = {index: c.text for index, c in zip(value["order"], entry.comparison.completions, strict=True)}
    completions = tuple(Completion(texts[i], origin_from_json(origin)) for i, origin in enumerate(value["origins"]))
    comparison = Comparison(entry.comparison.prompt, completions, value["source"], value["slices"])
    return Entry(comparison, (judgement_from_json(value["judgement"], comparison),))


class Sidecar:
    """A sidecar being read alongside its file."""

    def __init__(self, path: Path, header: Header) -> None:
        """Begin after the header. Use `Sidecar.of`, which checks it."""
        self.format = header.format
        self._path = path
        self._lines = self._values()

    @staticmethod
    def of(path: Path) -> "Sidecar | None":
        """The sidecar of a file, if there is one.

        Raises:
            InputRefused: the sidecar is damaged, or the file was changed since the export.
        """
        place = beside(path)
        if not path.is_file() or not place.exists():
            return None
        with place.open("rb") as lines:
            try:
                first = json.loads(lines.readline(1_000))
                header = Header(str(first["format"]), str(first["sha256"]))
            except (ValueError, KeyError, TypeError) as error:
                raise InputRefused(f"{place.name}, line 1: no sidecar header; export again or delete it") from error
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != header.sha256:
                raise InputRefused(
                    f"{path.name} is not the file {place.name} was written for, it was changed since the export; "
                    "export again, or delete the sidecar to import the file by itself"
                )
        return Sidecar(place, header)

    def restore(self, entry: Entry, line: int) -> list[Entry]:
        """The records a row of the file was exported from, preceded by records that stood before it.

        Args:
            entry: the row as the importer read it.
            line: its line in the file.

        Raises:
            RowRefused: the sidecar ends before that row.
        """
        before: list[Entry] = []
        for value in self._lines:
            if "entry" in value:
                before.append(entry_from_json(value["entry"]))
            elif value["line"] == line:
                return [*before, with_facts(entry, value["row"])]
        raise RowRefused(f"{self._path.name} says nothing of it; expected one line per row; export again")

    def rest(self) -> Iterator[Entry]:
        """Records that stood after the last row."""
        return (entry_from_json(value["entry"]) for value in self._lines if "entry" in value)

    def _values(self) -> Iterator[dict[str, Any]]:
        with self._path.open("rb") as lines:
            next(lines)
            for number, line in enumerate(lines, start=2):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise InputRefused(f"{self._path.name}, line {number}: not JSON; export again") from error
