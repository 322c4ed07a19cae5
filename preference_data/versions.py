"""Immutable dataset versions: a folder with the pairs as parquet and a manifest that proves them whole.

A version is named by the SHA-256 of its canonical rows: one line of canonical JSON per pair, in the order of the pair
keys. File bytes differ with the parquet writer; the rows do not. A folder appears under its name complete or not at
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
from preference_data.pair_table import read_pairs, row_of, write_rows
from preference_data.records import SPLITS, Pair, Split, canonical_json, digest
from preference_data.spool import Spool

SCHEMA_VERSION = 1
PAIRS_FILE, MANIFEST_FILE = "pairs.parquet", "MANIFEST.json"
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

    def verify(self) -> None:
        """Read everything again and hold it to the manifest: file bytes, row digest, counts.

        Raises:
            VersionError: something differs; names the file, what was found, what was expected and the next action.
        """
        _verify_file(self.path, self.manifest)
        pairs = self.pairs()
        found = rows_digest(pairs)
        if found != self.digest:
            raise VersionError(
                f"{self.path / PAIRS_FILE}: rows hash to {found}; expected {self.digest} as in {MANIFEST_FILE}; {_NEXT}"
            )
        counted = _Counted(row_of(pair) for pair in pairs)
        deque(counted, maxlen=0)
        if (counted.splits, counted.slices) != (self.manifest.counts, self.manifest.slices):
            raise VersionError(f"{self.path / MANIFEST_FILE}: counts differ from the rows of {PAIRS_FILE}; {_NEXT}")


def rows_digest(pairs: Iterable[Pair]) -> str:
    """SHA-256 (hex) over the canonical rows of pairs, whatever their order."""
    rows = sorted((row_of(pair) for pair in pairs), key=lambda row: row["key"])
    return _digest_of(canonical_json(row).encode() for row in rows)


def write_version(
    pairs: Iterable[Pair], directory: Path, *, rule: Mapping[str, Any], watermark: int, head: str, parent: str = ""
) -> Version:
    """Write pairs as a version under `directory / digest`, or return the version already there.

    Args:
        pairs: pairs of distinct keys, in any order.
        directory: folder of all versions; made if needed.
        rule: the freeze rule as plain values.
        watermark: sequence number of the last event read.
        head: hash of that event.
        parent: digest of the version this one follows.

    Raises:
        VersionError: the disk is full or refuses; nothing is left of the attempt. Or a damaged version of the same
            digest is in the way.
    """
    with _explained(directory):
        spool = Spool()
        for pair in pairs:
            spool.add(pair)
    return write_spooled(spool, directory, rule=rule, watermark=watermark, head=head, parent=parent)


def write_spooled(
    spool: Spool, directory: Path, *, rule: Mapping[str, Any], watermark: int, head: str, parent: str = ""
) -> Version:
    """The same of pairs that may be more than fit into memory.

    Raises:
        VersionError: as `write_version`.
    """
    staging = directory / f".staging-{uuid.uuid4().hex}"
    with _explained(directory):
        name = _digest_of(spool.lines())
        if (directory / name).exists():
            return load_version(directory / name)
        counted = _Counted(spool.rows())
        try:
            staging.mkdir(parents=True)
            write_rows(counted, staging / PAIRS_FILE)
            manifest = Manifest(
                digest=name,
                counts=counted.splits,
                slices=counted.slices,
                rule=rule,
                watermark=watermark,
                head=head,
                parent=parent,
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
    _verify_file(path, manifest)
    return Version(manifest.digest, path, manifest)


def _verify_file(path: Path, manifest: Manifest) -> None:
    source = path / PAIRS_FILE
    try:
        size, found = source.stat().st_size, _sha256(source)
    except OSError as error:
        raise VersionError(f"{source}: {error.strerror}; expected {manifest.size} bytes; {_NEXT}") from error
    if size != manifest.size:
        raise VersionError(f"{source}: {size} bytes; expected {manifest.size}; {_NEXT}")
    if found != manifest.sha256:
        raise VersionError(f"{source}: damaged, SHA-256 is {found}; expected {manifest.sha256}; {_NEXT}")


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
    target = folder / PAIRS_FILE
    _sync(target)
    fields = asdict(manifest) | {"size": target.stat().st_size, "sha256": _sha256(target)}
    text = json.dumps(fields | {"check": digest(fields)}, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
    _sync(folder / MANIFEST_FILE)
    _sync(folder)


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


def _digest_of(lines: Iterable[bytes]) -> str:
    whole = hashlib.sha256(f"pairs/{SCHEMA_VERSION}\n".encode())
    for line in lines:
        whole.update(line + b"\n")
    return whole.hexdigest()
