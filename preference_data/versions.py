"""Immutable dataset versions: a folder with the pairs as parquet and a manifest that proves them whole.

A version is named by the SHA-256 of its canonical rows: one line of canonical JSON per pair, in the order of the pair
keys, and behind a line of their own those of its single answers, where it has any; these lie in a file beside the pairs. File bytes differ with the parquet writer; the rows do not. A folder appears under its name complete or not at
all (write, fsync, rename: Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014).
"""

import hashlib
import json
import os
import shutil
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from preference_data.errors import VersionError
from preference_data.pair_table import read_pairs, read_singles, row_of, write_rows
from preference_data.records import SPLITS, Pair, Single, Split, canonical_json, digest
from preference_data.spool import Spool

SCHEMA_VERSION = 1
PAIRS_FILE, SINGLES_FILE, MANIFEST_FILE = "pairs.parquet", "singles.parquet", "MANIFEST.json"
_NEXT = "restore the folder from a copy, or delete it and freeze again"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a version holds and where it came from.

    Attributes:
        digest: SHA-256 (hex) over the canonical rows.
        counts: pairs per split.
        slices: pairs per value of every slice.
        rule: the freeze rule as plain values.
        watermark: sequence number of the last event of the store that was read.
        head: hash of that event.
        parent: digest of the version this one follows, empty where there is none.
        size, sha256: of the parquet file, in bytes and in hex.
        singles: single answers per split; of a version without any, the manifest has neither this nor what follows.
        singles_size, singles_sha256: of their file.
    """

    digest: str
    counts: Mapping[str, int]
    slices: Mapping[str, Mapping[str, int]]
    rule: Mapping[str, Any]
    watermark: int
    head: str
    parent: str = ""
    size: int = 0
    sha256: str = ""
    schema_version: int = SCHEMA_VERSION
    singles: Mapping[str, int] = field(default_factory=dict[str, int])
    singles_size: int = 0
    singles_sha256: str = ""


_OF_SINGLES = ("singles", "singles_size", "singles_sha256")


@dataclass(frozen=True, slots=True)
class Version:
    """A dataset version on disk."""

    digest: str
    path: Path
    manifest: Manifest = field(repr=False)

    @property
    def counts(self) -> dict[Split, int]:
        """Pairs per split."""
        return {split: self.manifest.counts[split] for split in SPLITS}

    def pairs(self, split: Split | None = None) -> list[Pair]:
        """The pairs of one split, or all, in the order of their keys.

        Raises:
            VersionError: the parquet file is gone or cannot be read.
        """
        return read_pairs(self.path / PAIRS_FILE, split)

    def singles(self, split: Split | None = None) -> list[Single]:
        """The single answers of one split, or all, in the order of their keys; none where the version has none.

        Raises:
            VersionError: the parquet file is gone or cannot be read.
        """
        return read_singles(self.path / SINGLES_FILE, split) if self.manifest.singles else []

    def verify(self) -> None:
        """Read everything again and hold it to the manifest: file bytes, row digest, counts.

        Raises:
            VersionError: something differs; names the file, what was found, what was expected and the next action.
        """
        _verify_files(self.path, self.manifest)
        pairs, singles = self.pairs(), self.singles()
        found = rows_digest(pairs, singles)
        if found != self.digest:
            raise VersionError(
                f"{self.path / PAIRS_FILE}: rows hash to {found}; expected {self.digest} as in {MANIFEST_FILE}; {_NEXT}"
            )
        counted, alone = (_Counted(map(row_of, records)) for records in (pairs, singles))
        for rows in (counted, alone):
            deque(rows, maxlen=0)
        known = (self.manifest.counts, self.manifest.slices, self.manifest.singles)
        if (counted.splits, counted.slices, alone.splits if singles else {}) != known:
            raise VersionError(f"{self.path / MANIFEST_FILE}: counts differ from the rows of {PAIRS_FILE}; {_NEXT}")


def rows_digest(pairs: Iterable[Pair], singles: Iterable[Single] = ()) -> str:
    """SHA-256 (hex) over the canonical rows of pairs and single answers, whatever their order."""
    return _digest_of(*(
        (canonical_json(row).encode() for row in sorted(map(row_of, records), key=lambda row: row["key"]))
        for records in (pairs, singles)
    ))  # fmt: skip


def write_version(
    pairs: Iterable[Pair],
    directory: Path,
    *,
    singles: Iterable[Single] = (),
    rule: Mapping[str, Any],
    watermark: int,
    head: str,
    parent: str = "",
) -> Version:
    """Write pairs as a version under `directory / digest`, or return the version already there.

    Args:
        pairs: pairs of distinct keys, in any order.
        directory: folder of all versions; made if needed.
        singles: single answers of distinct keys, in any order.
        rule: the freeze rule as plain values.
        watermark: sequence number of the last event read.
        head: hash of that event.
        parent: digest of the version this one follows.

    Raises:
        VersionError: the disk is full or refuses; nothing is left of the attempt. Or a damaged version of the same
            digest is in the way.
    """
    with _explained(directory):
        spool, alone = Spool(), Spool()
        for pair in pairs:
            spool.add(pair)
        for single in singles:
            alone.add(single)
    return write_spooled(spool, directory, singles=alone, rule=rule, watermark=watermark, head=head, parent=parent)


def write_spooled(
    spool: Spool,
    directory: Path,
    *,
    singles: Spool,
    rule: Mapping[str, Any],
    watermark: int,
    head: str,
    parent: str = "",
) -> Version:
    """The same of pairs and single answers that may be more than fit into memory.

    Raises:
        VersionError: as `write_version`.
    """
    staging = directory / f".staging-{uuid.uuid4().hex}"
    with _explained(directory):
        name = _digest_of(spool.lines(), singles.lines())
        if (directory / name).exists():
            return load_version(directory / name)
        counted = _Counted(spool.rows())
        try:
            staging.mkdir(parents=True)
            write_rows(counted, staging / PAIRS_FILE)
            if len(singles):
                write_rows(singles.rows(), staging / SINGLES_FILE, singles=True)
            manifest = Manifest(
                digest=name,
                counts=counted.splits,
                slices=counted.slices,
                rule=rule,
                watermark=watermark,
                head=head,
                parent=parent,
                singles=dict[str, int](singles.splits().items()) if len(singles) else {},
            )
            _write_manifest(staging, manifest)
            _publish(staging, directory / name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return load_version(directory / name)


@contextmanager
def _explained(directory: Path) -> Generator[None]:
    """Say what to do where the disk is full or refuses."""
    try:
        yield
    except OSError as error:
        raise VersionError(
            f"{directory}: cannot write the dataset version ({error.strerror or error}); nothing of it was kept; "
            "free space or choose another folder, then freeze again"
        ) from error


def load_version(path: Path) -> Version:
    """Open a version and hold its files to the manifest. `Version.verify` also reads every row.

    Raises:
        VersionError: the folder is no version, or a file is missing, cut or changed.
    """
    source = path / MANIFEST_FILE
    try:
        found: Any = json.loads(source.read_bytes())
    except OSError as error:
        raise VersionError(
            f"{source}: {error.strerror}; expected a dataset version as freeze writes it; check the path, or {_NEXT}"
        ) from error
    except ValueError as error:
        raise VersionError(f"{source}: not JSON ({error}); {_NEXT}") from error
    fields = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if fields.pop("check", None) != digest(fields):
        raise VersionError(f"{source}: changed since it was written (its check sum differs); {_NEXT}")
    if fields["schema_version"] != SCHEMA_VERSION:
        raise VersionError(
            f"{source}: schema version {fields['schema_version']}; this release reads {SCHEMA_VERSION}; "
            "install the release that wrote it, or freeze again"
        )
    manifest = Manifest(**fields)
    _verify_files(path, manifest)
    return Version(manifest.digest, path, manifest)


def _verify_files(path: Path, manifest: Manifest) -> None:
    _verify_file(path / PAIRS_FILE, manifest.size, manifest.sha256)
    if manifest.singles:
        _verify_file(path / SINGLES_FILE, manifest.singles_size, manifest.singles_sha256)


def _verify_file(source: Path, expected: int, sha256: str) -> None:
    try:
        size, found = source.stat().st_size, _sha256(source)
    except OSError as error:
        raise VersionError(f"{source}: {error.strerror}; expected {expected} bytes; {_NEXT}") from error
    if size != expected:
        raise VersionError(f"{source}: {size} bytes; expected {expected}; {_NEXT}")
    if found != sha256:
        raise VersionError(f"{source}: damaged, SHA-256 is {found}; expected {sha256}; {_NEXT}")


class _Counted:
    """Rows, counted as they pass."""

    def __init__(self, rows: Iterable[dict[str, Any]]) -> None:
        self._rows = rows
        self._splits: Counter[str] = Counter()
        self._slices: dict[str, Counter[str]] = defaultdict(Counter)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self._rows:
            self._splits[row["split"]] += 1
            for name, value in row["slices"]:
                self._slices[name][value] += 1
            yield row

    @property
    def splits(self) -> dict[str, int]:
        """Rows per split; every split is named."""
        return {split: self._splits[split] for split in SPLITS}

    @property
    def slices(self) -> dict[str, dict[str, int]]:
        """Rows per value of every slice."""
        return {name: dict(sorted(values.items())) for name, values in sorted(self._slices.items())}


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    fields = asdict(manifest) | _facts(folder / PAIRS_FILE)
    if manifest.singles:
        fields |= {f"singles_{name}": fact for name, fact in _facts(folder / SINGLES_FILE).items()}
    else:
        fields = {name: value for name, value in fields.items() if name not in _OF_SINGLES}
    text = json.dumps(fields | {"check": digest(fields)}, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
    _sync(folder / MANIFEST_FILE)
    _sync(folder)


def _facts(written: Path) -> dict[str, Any]:
    _sync(written)
    return {"size": written.stat().st_size, "sha256": _sha256(written)}


def _publish(staging: Path, target: Path) -> None:
    """Rename into place. Another process that published the same rows meanwhile wins."""
    try:
        staging.rename(target)
    except OSError:
        if not target.exists():
            raise
    _sync(target.parent)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _digest_of(lines: Iterable[bytes], singles: Iterable[bytes]) -> str:
    whole = hashlib.sha256(f"pairs/{SCHEMA_VERSION}\n".encode())
    for line in lines:
        whole.update(line + b"\n")
    for place, line in enumerate(singles):
        whole.update(b"singles/1\n" if place == 0 else b"")
        whole.update(line + b"\n")
    return whole.hexdigest()
