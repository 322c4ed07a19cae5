"""A file into the store: a batch at a time, every refused row accounted for."""

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Protocol, Self

from preference_data.errors import InputRefused, PreferenceDataError, RowRefused
from preference_data.garbage import only_new_garbage
from preference_data.importers.importer import Importer, Source
from preference_data.importers.registry import named, sniff
from preference_data.mapping import load
from preference_data.reading import plain_name, rows, size
from preference_data.records import Comparison, Pairwise, Verdict, now
from preference_data.sidecar import Sidecar
from preference_data.store import Added, Entry
from preference_data.streams import Refusal, Row

BATCH, BATCH_CHARACTERS = 4_000, 16_000_000
"""Comparisons, and characters of their texts, per transaction: few enough to hold, and enough that a page of an index,
where keys come in any order, is not written again for each few of them."""

SNIFF_ROWS = 100
SHOWN = 2_000
"""Characters of a refused row that the rejects file repeats."""

UNDECIDED = (Verdict.TIE, Verdict.NEITHER)


class Sink(Protocol):
    """What takes records: a store, or nothing."""

    def add(self, entries: Iterable[Entry]) -> Added:
        """Take a batch; says what was new."""
        ...


class Nowhere:
    """Counts and forgets: an import into it shows what a file holds."""

    def add(self, entries: Iterable[Entry]) -> Added:
        """Count a batch as new."""
        return Added(sum(max(1, len(entry.judgements)) for entry in entries), 0)


class ImportReport(NamedTuple):
    """What came of a file.

    Attributes:
        read: rows of the file.
        stored: judgements new to the store.
        duplicates: judgements it had already, or that the file repeats.
        ties: judgements read that name no winner (equally good, or both bad).
        refused: rows in the rejects file.
        format: the format they were read as.
        stopped: why reading ended before the file did; empty if it did not.
    """

    read: int
    stored: int
    duplicates: int
    ties: int
    refused: int
    format: str
    stopped: str = ""


class Rejects:
    """Refused rows as JSON Lines, with file, line and reason. The file exists only if there are any."""

    def __init__(self, path: Path, file: str) -> None:
        """Prepare; an earlier import's file of that name goes.

        Args:
            path: where to write.
            file: name of the file being imported.
        """
        self._path = path
        self._file = file
        self._out: IO[bytes] | None = None
        self.count = 0
        if path.is_file():  # a device such as /dev/null stays
            path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._out:
            self._out.close()

    def add(self, row: Row, reason: str) -> None:
        """Write one down.

        Raises:
            PreferenceDataError: it cannot be written.
        """
        seen = None if isinstance(row.value, Refusal) else json.dumps(row.value)[:SHOWN]
        note = {"file": self._file, "line": row.line, "reason": reason, "row": seen}
        try:
            if self._out is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._out = self._path.open("wb", buffering=0)
            self._out.write(json.dumps(note).encode() + b"\n")
        except OSError as error:
            raise PreferenceDataError(
                f"{self._path}: cannot be written ({error.strerror}); what was imported before is kept; "
                "free the disk or choose another place, and import again"
            ) from error
        self.count += 1


@only_new_garbage()
def import_file(
    path: Path,
    store: Sink,
    *,
    rejects: Path,
    format: str | None = None,  # noqa: A002  the word users know from the command line
    mapping: Path | str | None = None,
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
    at: datetime | None = None,
) -> ImportReport:
    """Store what a file says. Importing it again adds nothing.

    A file with an export's sidecar beside it gets back what the format could not carry.

    Args:
        path: a .jsonl, .json or .csv file, plain or gzip, a .parquet file, or a folder of `datasets`.
        store: where it goes, in transactions of `BATCH` comparisons.
        rejects: file for the rows refused; replaced.
        format: name of the format; None to tell by the rows.
        mapping: mapping file, or name of one that comes along, for formats not known.
        strict: the first refused row ends the import, and nothing of its batch is stored.
        progress: told bytes done and bytes in all after each batch.
        at: time of judgements whose row gives none, UTC; None for the present.

    Returns:
        The counts.

    Raises:
        InputRefused: nothing can be read, the format is unknown, a row is refused and `strict` is set, or the
            rejects would overwrite the file.
        PreferenceDataError: the rejects cannot be written.
        StoreError: the store does not take a batch; those before it are stored.
    """
    if rejects.resolve() == path.resolve():
        raise InputRefused(f"{path.name}: the rejects would overwrite it; choose another file for them")
    beside = Sidecar.of(path)
    if beside and (mapping or format not in {None, beside.format}):
        raise InputRefused(f"{path.name}: its sidecar says {beside.format}; leave out {mapping or format}")
    importer, read = _begin(path, beside.format if beside else format, mapping)
    source = Source(plain_name(path), at or now())
    with Rejects(rejects, path.name) as out:
        run = _Run(store, out, path.name, strict=strict)
        total = size(path)
        for row in read:
            if run.take(row, _entries(row, importer, source, beside)) and progress:
                progress(row.bytes_done, total)
        for entry in beside.rest() if beside else ():
            run.add([entry])
        run.flush()
        if progress:
            progress(total, total)
        return ImportReport(run.read, run.stored, run.duplicates, run.ties, out.count, importer.name, run.stopped)


def _begin(path: Path, name: str | None, mapping: Path | str | None) -> tuple[Importer, Iterator[Row]]:
    """The importer asked for, or told by the first rows; and all rows."""
    if name and mapping:
        raise InputRefused(f"both format {name!r} and mapping {mapping} given; expected one; leave one out")
    read = rows(path)
    first = list(islice(read, SNIFF_ROWS))
    known = load(mapping) if mapping else named(name) if name else None
    return known or sniff(first, path.name), chain(first, read)


def _entries(row: Row, importer: Importer, source: Source, beside: Sidecar | None) -> list[Entry] | Refusal:
    if isinstance(row.value, Refusal):
        return row.value
    try:
        entries = importer.convert(row.value, source)
        return beside.restore(entries[0], row.line) if beside else entries
    except RowRefused as error:
        return Refusal(str(error))


class _Run:
    """Counts and the batch under way."""

    def __init__(self, store: Sink, rejects: Rejects, file: str, *, strict: bool) -> None:
        self._store, self._rejects, self._file, self._strict = store, rejects, file, strict
        self._batch: list[Entry] = []
        self._characters = 0
        self.read = self.stored = self.duplicates = self.ties = 0
        self.stopped = ""

    def take(self, row: Row, outcome: list[Entry] | Refusal) -> bool:
        """Count a row; True if a batch was stored."""
        if isinstance(outcome, list):
            self.read += 1
            return self.add(outcome)
        if self._strict:
            raise InputRefused(f"{self._file}, line {row.line}: {outcome.reason}")
        self._rejects.add(row, outcome.reason)
        if outcome.ends_file:
            self.stopped = outcome.reason
        else:
            self.read += 1
        return False

    def add(self, entries: list[Entry]) -> bool:
        """Put entries into the batch; True if it was stored."""
        self._batch.extend(entries)
        opinions: list[Any] = [judgement.opinion for entry in entries for judgement in entry.judgements]
        self.ties += sum(isinstance(opinion, Pairwise) and opinion.verdict in UNDECIDED for opinion in opinions)
        self._characters += sum(_characters(entry.comparison) for entry in entries)
        if len(self._batch) < BATCH and self._characters < BATCH_CHARACTERS:
            return False
        self.flush()
        return True

    def flush(self) -> None:
        """Store the batch, in one transaction."""
        if self._batch:
            added = self._store.add(self._batch)
            self.stored += added.stored
            self.duplicates += added.duplicates
            self._batch, self._characters = [], 0


def _characters(comparison: Comparison) -> int:
    return sum(len(turn.content) for turn in comparison.prompt.messages) + sum(
        len(answer.text) for answer in comparison.completions
    )
