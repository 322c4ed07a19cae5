"""Folders that never change, addressed by their content.

A folder is built in `staging/`, then published: every file is flushed to disk, `MANIFEST.json` lists names, sizes and
SHA-256, and one rename puts the folder to `objects/<digest>`, where the digest is the hash of the manifest. Whatever
lies under `objects/` is therefore complete, and the same work done twice gives the same folder. The order of flushes
and renames follows Pillai et al., OSDI 2014.
"""

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

from safetensors import SafetensorError

from preference_data.records import canonical_json
from workbench.errors import ArtifactError
from workbench.failpoints import failpoint

MANIFEST = "MANIFEST.json"
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
LITTLE_BYTES = 1 << 24
"""With less free a disk counts as full where a library only says that it could not write."""


class Entry(NamedTuple):
    """What one file of a folder must be."""

    sha256: str
    size: int


Manifest = dict[str, Entry]
"""Files of a folder by their path in it, with forward slashes."""


class Swept(NamedTuple):
    """What a sweep gave back: bytes, and how many folders."""

    bytes: int
    folders: int


def manifest_digest(manifest: Manifest) -> str:
    """Content id of a folder: SHA-256 (hex) of its manifest in canonical form."""
    return hashlib.sha256(_manifest_bytes(manifest)).hexdigest()


def entry(path: Path) -> Entry:
    """Hash and size of one file."""
    with path.open("rb") as file:
        return Entry(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


@contextmanager
def disk_faults(path: Path) -> Generator[None]:
    """Turn a full or failing disk into an `ArtifactError` that says what to do.

    Args:
        path: what is being written; named in the message.
    """
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        # Weights are written by libraries that tell of a full disk in words of their own.
        if shutil.disk_usage(path if path.exists() else path.parent).free > LITTLE_BYTES:
            raise
        raise ArtifactError(
            f"{path}: cannot be written, the disk is full ({error}); nothing published has changed; free some space "
            "(`workbench gc` removes what nothing refers to), then run the same command again"
        ) from error
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        advice = "check the disk and its mount" if error.errno in {errno.EIO, errno.EROFS} else (
            "free some space (`workbench gc` removes what nothing refers to)")  # fmt: skip
        raise ArtifactError(
            f"{error.filename or path}: cannot be written: {os.strerror(error.errno)}; "
            f"nothing published has changed; {advice}, then run the same command again"
        ) from error


def seal(folder: Path) -> str:
    """Write the manifest of a folder that stays where it is, such as a checkpoint.

    Until the manifest is there the folder counts as unfinished; it appears last, in one rename.

    Returns:
        The folder's digest, what `verify_folder` answers later.

    Raises:
        ArtifactError: the disk is full or failing, or the folder holds a link.
    """
    with disk_faults(folder):
        manifest = _flushed_manifest(folder)
        temporary = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
        _write_flushed(temporary, _manifest_bytes(manifest))
        failpoint("objects.seal.before_rename")
        temporary.replace(folder / MANIFEST)
        _flush(folder)
        _flush(folder.parent)
    return manifest_digest(manifest)


def verify_folder(folder: Path) -> str:
    """Check every file of a sealed or published folder against its manifest.

    Returns:
        The folder's digest.

    Raises:
        ArtifactError: the folder or its manifest is missing, or a file is missing, changed or extra; names the file.
    """
    expected = _read_manifest(folder)
    present = set(_files(folder))
    for name, wanted in expected.items():
        if name not in present:
            raise ArtifactError(f"{folder / name}: missing; {_advice(folder)}")
        found = entry(folder / name)
        if found != wanted:
            raise ArtifactError(
                f"{folder / name}: damaged: {found.size} bytes with hash {found.sha256[:12]}, expected "
                f"{wanted.size} bytes with hash {wanted.sha256[:12]}; {_advice(folder)}"
            )
    if extra := sorted(present - expected.keys()):
        raise ArtifactError(f"{folder / extra[0]}: not part of what was published; remove this file")
    return manifest_digest(expected)


class Objects:
    """Content-addressed folders below one root, on one filesystem.

    Args:
        root: holds `objects/` and `staging/`; made where missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._objects = root / "objects"
        self._staging = root / "staging"
        for folder in (self._objects, self._staging):
            folder.mkdir(parents=True, exist_ok=True)

    def stage(self) -> Path:
        """A fresh empty folder to work in; what is not published is swept up later."""
        folder = self._staging / uuid.uuid4().hex
        with disk_faults(folder):
            folder.mkdir()
        return folder

    def discard(self, staged: Path) -> None:
        """Remove a staged folder; one that was published or is gone already is left alone."""
        shutil.rmtree(staged, ignore_errors=True)

    def path(self, digest: str) -> Path:
        """Where a published folder lies, whether or not it is there."""
        return self._objects / digest

    def publish(self, staged: Path) -> str:
        """Make a staged folder immutable. Publishing the same content again gives the same digest and one folder.

        Returns:
            The digest that `path` and `verify` take.

        Raises:
            ArtifactError: the disk is full or failing, or the folder holds a link. Nothing is then published.
        """
        with disk_faults(staged):
            (staged / MANIFEST).unlink(missing_ok=True)
            manifest = _flushed_manifest(staged)
            failpoint("objects.publish.before_manifest")
            _write_flushed(staged / MANIFEST, _manifest_bytes(manifest))
            _flush(staged)
            digest = manifest_digest(manifest)
            failpoint("objects.publish.before_rename")
            self._place(staged, digest)
            _flush(self._objects)
            failpoint("objects.publish.after_rename")
        return digest

    def verify(self, digest: str) -> None:
        """Check every byte of a published folder.

        Raises:
            ArtifactError: the folder is missing, or a file is missing, changed or extra; names it and the next action.
        """
        folder = self.path(digest)
        if not folder.is_dir():
            raise ArtifactError(f"{folder}: no such object; run the round that made it again, or restore a backup")
        found = verify_folder(folder)
        if found != digest:
            raise ArtifactError(
                f"{folder / MANIFEST}: damaged: it is of {found[:12]}, expected {digest[:12]}; {_advice(folder)}"
            )

    def sweep(self, keep: set[str], older_than_s: float, *, forget: Collection[str] = ()) -> Swept:
        """Remove objects nothing refers to, and staging folders left behind.

        Args:
            keep: digests of objects to keep.
            older_than_s: grace period in seconds; younger folders stay, since a step may be about to record them.
            forget: digests of objects that go all the same, however young.
        """
        limit = time.time() - older_than_s
        unreferenced = [f for f in self._objects.iterdir() if f.name not in keep or f.name in forget]
        freed = count = 0
        for folder in (*unreferenced, *self._staging.iterdir()):
            if folder.stat().st_mtime > limit and folder.name not in forget:
                continue
            freed += sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
            count += 1
            self._remove(folder)
        return Swept(freed, count)

    def _place(self, staged: Path, digest: str) -> None:
        destination = self.path(digest)
        if destination.exists():
            try:
                self.verify(digest)
            except ArtifactError:
                self._remove(destination)
            else:
                os.utime(destination)  # young again: a sweep must not take it before it is recorded
                shutil.rmtree(staged)
                return
        try:
            staged.rename(destination)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            shutil.rmtree(staged)  # another process published the same content in between

    def _remove(self, folder: Path) -> None:
        """Take a folder out of sight in one rename first: half an object never lies under `objects/`."""
        doomed = self._staging / f"removed-{uuid.uuid4().hex}"
        folder.rename(doomed)
        failpoint("objects.sweep.after_rename")
        shutil.rmtree(doomed)


def _advice(folder: Path) -> str:
    return f"remove the folder {folder} and run the round again (the step is then redone), or restore a backup"


def _files(folder: Path) -> list[str]:
    """Names of the files below a folder, the manifest apart, sorted."""
    found: list[str] = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise ArtifactError(f"{path}: is a link; expected a file of its own; copy its target there")
        if path.is_file() and path != folder / MANIFEST:
            found.append(path.relative_to(folder).as_posix())
    return found


def _flushed_manifest(folder: Path) -> Manifest:
    manifest: Manifest = {}
    for name in _files(folder):
        _flush(folder / name)
        manifest[name] = entry(folder / name)
    for path in folder.rglob("*"):
        if path.is_dir():
            _flush(path)
    _flush(folder)
    return manifest


def _manifest_bytes(manifest: Manifest) -> bytes:
    return canonical_json({name: e._asdict() for name, e in manifest.items()}).encode()


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        raw = cast("dict[str, dict[str, object]]", json.loads(path.read_text(encoding="utf-8")))
        return {name: Entry(str(e["sha256"]), int(str(e["size"]))) for name, e in raw.items()}
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: missing: the folder was never finished; {_advice(folder)}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(f"{path}: damaged: not a manifest ({error}); {_advice(folder)}") from error


def _write_flushed(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush(path: Path) -> None:
    """Force a file or a folder's entries to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
