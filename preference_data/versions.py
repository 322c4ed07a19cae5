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
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from preference_data.errors import VersionError
from preference_data.pair_table import read_pairs, row_of, write_rows
from preference_data.records import SPLITS, Pair, Split, canonical_json, digest

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
        if (count_splits(pairs), count_slices(pairs)) != (self.manifest.counts, self.manifest.slices):
            raise VersionError(f"{self.path / MANIFEST_FILE}: counts differ from the rows of {PAIRS_FILE}; {_NEXT}")


def rows_digest(pairs: Iterable[Pair]) -> str:
    """SHA-256 (hex) over the canonical rows of pairs, whatever their order."""
    return _digest_of(_rows(pairs))


def count_splits(pairs: Iterable[Pair]) -> dict[str, int]:
    """Pairs per split; every split is named."""
    counts = Counter(pair.split for pair in pairs)
    return {split: counts[split] for split in SPLITS}


def count_slices(pairs: Iterable[Pair]) -> dict[str, dict[str, int]]:
    """Pairs per value of every slice."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for pair in pairs:
        for name, value in pair.slices.items():
            counts[name][value] += 1
    return {name: dict(sorted(values.items())) for name, values in sorted(counts.items())}


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
    pairs = list(pairs)
    rows = _rows(pairs)
    name = _digest_of(rows)
    if (directory / name).exists():
        return load_version(directory / name)
    manifest = Manifest(
        digest=name,
        counts=count_splits(pairs),
        slices=count_slices(pairs),
        rule=rule,
        watermark=watermark,
        head=head,
        parent=parent,
    )
    staging = directory / f".staging-{uuid.uuid4().hex}"
    try:
        staging.mkdir(parents=True)
        _write_files(staging, rows, manifest)
        _publish(staging, directory / name)
    except OSError as error:
        raise VersionError(
            f"{directory}: cannot write the dataset version ({error.strerror or error}); nothing of it was kept; "
            "free space or choose another folder, then freeze again"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return load_version(directory / name)


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


def _write_files(folder: Path, rows: list[dict[str, Any]], manifest: Manifest) -> None:
    target = folder / PAIRS_FILE
    write_rows(rows, target)
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


def _rows(pairs: Iterable[Pair]) -> list[dict[str, Any]]:
    return sorted((row_of(pair) for pair in pairs), key=lambda row: row["key"])


def _digest_of(rows: Iterable[Mapping[str, Any]]) -> str:
    whole = hashlib.sha256(f"pairs/{SCHEMA_VERSION}\n".encode())
    for row in rows:
        whole.update(canonical_json(row).encode() + b"\n")
    return whole.hexdigest()
