"""Records into a file of a public format, and into its sidecar what the format cannot carry."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from preference_data.errors import InputRefused, PreferenceDataError, RowRefused
from preference_data.exporters import arena, helpsteer3, hh, openai, trl, ultrafeedback
from preference_data.exporters.exporter import Exporter
from preference_data.importers.importer import Source
from preference_data.importers.registry import named
from preference_data.json_rows import parse
from preference_data.records import Comparison, Judgement
from preference_data.sidecar import Header, beside, entry_as_json, facts, with_facts
from preference_data.store import Entry
from preference_data.streams import Refusal
from preference_data.votes import SET_ASIDE

_BUILT_IN = (
    trl.PREFERENCE,
    trl.UNPAIRED,
    openai.OPENAI,
    hh.HH,
    ultrafeedback.ULTRAFEEDBACK,
    helpsteer3.HELPSTEER3,
    arena.ARENA,
)
EXPORTERS = {exporter.name: exporter for exporter in _BUILT_IN}
UNKNOWN = "0" * 64
"""Stands in the header until the file is complete and its SHA-256 known; of the same length."""


class ExportReport(NamedTuple):
    """What was written.

    Attributes:
        rows: judgements in the file.
        left_out: judgements in the sidecar alone, because the format has no place for them.
    """

    rows: int
    left_out: int


def export(name: str, entries: Iterable[Entry], path: Path) -> ExportReport:
    """Write a file and its sidecar; importing the file with the sidecar beside it restores the same records.

    Superseded judgements, those that are set aside at a freeze (late, repeats, trials), and rows that importers refuse
    (two equal answers) are in the sidecar alone. Both files appear complete or not at all.

    Args:
        name: format, one of `EXPORTERS`.
        entries: comparisons with their judgements.
        path: a .jsonl file; replaced.

    Raises:
        InputRefused: the format is unknown, or the file's ending is not .jsonl.
        PreferenceDataError: the files cannot be written; what stood there before is unchanged.
    """
    if name not in EXPORTERS:
        raise InputRefused(f"unknown format {name!r}; export knows {', '.join(EXPORTERS)}")
    if path.suffix != ".jsonl":
        raise InputRefused(f"{path.name}: ending {path.suffix!r}; expected .jsonl; give the file another name")
    parts = [place.with_name(place.name + ".part") for place in (path, beside(path))]
    try:
        with parts[0].open("wb") as main, parts[1].open("wb") as side:
            written = _Export(EXPORTERS[name], main, side)
            for entry in entries:
                written.add(entry)
            written.finish()
        parts[1].replace(beside(path))
        parts[0].replace(path)
    except OSError as error:
        raise PreferenceDataError(
            f"{path}: cannot be written ({error.strerror}); what stood there is unchanged; "
            "free the disk or choose another place and export again"
        ) from error
    finally:
        for part in parts:
            with suppress(OSError):
                part.unlink(missing_ok=True)
    return ExportReport(written.rows, written.left_out)


def _superseded(judgements: Sequence[Judgement]) -> set[str]:
    """Keys of those that a later one replaced. Keys change with an erased name; then a person's last one counts."""
    keys = {each.key for each in judgements}
    gone = {each.supersedes for each in judgements}
    erased = {each.annotator for each in judgements if each.supersedes and each.supersedes not in keys}
    last = {each.annotator: each.key for each in judgements}
    return (gone & keys) | {each.key for each in judgements if each.annotator in erased} - {*last.values()}


class _Export:
    """The two files being written."""

    def __init__(self, exporter: Exporter, main: IO[bytes], side: IO[bytes]) -> None:
        self._exporter, self._main, self._side = exporter, main, side
        self._read_back = named(exporter.name).convert
        self._hash = hashlib.sha256()
        self.rows = self.left_out = 0
        side.write(Header(exporter.name, UNKNOWN).line.encode())

    def add(self, entry: Entry) -> None:
        """Write a comparison's judgements, each to the file if it can be read back from there."""
        aside = _superseded(entry.judgements) | {j.key for j in entry.judgements if SET_ASIDE & set(j.flags)}
        apart = [j for j in entry.judgements if j.key in aside or not self._row(entry.comparison, j)]
        if apart or not entry.judgements:
            self._note({"entry": entry_as_json(Entry(entry.comparison, tuple(apart)))})
        self.left_out += len(apart)

    def _row(self, comparison: Comparison, judgement: Judgement) -> bool:
        order = self._exporter.order(comparison, judgement)
        if not order:
            return False
        row = self._exporter.row(comparison, judgement, order)
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
        missing = facts(comparison, judgement, order=order)
        if not self._restores(line, missing, Entry(comparison, (judgement,))):
            return False
        self.rows += 1
        self._main.write(line)
        self._hash.update(line)
        self._note({"line": self.rows, "row": missing})
        return True

    def _restores(self, line: bytes, missing: dict[str, Any], entry: Entry) -> bool:
        """Whether importing the line gives the records back: what makes the export loss-free by construction."""
        row = parse(line)
        if isinstance(row, Refusal):
            return False
        try:
            read = self._read_back(row, Source("", entry.judgements[0].at))
            return [with_facts(one, missing) for one in read] == [entry]
        except RowRefused:
            return False

    def _note(self, value: dict[str, Any]) -> None:
        self._side.write((json.dumps(value) + "\n").encode())

    def finish(self) -> None:
        """Complete the header and make both files durable."""
        self._side.seek(0)
        self._side.write(Header(self._exporter.name, self._hash.hexdigest()).line.encode())
        for file in (self._main, self._side):
            file.flush()
            os.fsync(file.fileno())
