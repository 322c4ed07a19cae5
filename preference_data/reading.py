"""Rows from files of any kind we know, streamed, without trusting the file."""

from collections.abc import Callable, Iterator
from pathlib import Path

import ijson  # pyright: ignore[reportMissingTypeStubs]

from preference_data.csv_rows import csv_rows
from preference_data.errors import InputRefused
from preference_data.json_rows import json_array, json_lines, looks_like_lines
from preference_data.streams import DAMAGE, Refusal, Row, Stream
from preference_data.tables import datasets_rows, folder_bytes, parquet_rows

KINDS = (".jsonl", ".json", ".csv", ".parquet")
KNOWN = ".jsonl, .json, .csv (each also .gz), .parquet, or a folder written by datasets.save_to_disk"


def rows(path: Path) -> Iterator[Row]:
    """Rows of a file, in order.

    A row that cannot be read is a `Refusal` and the rest goes on. Where nothing after a point can be read (a cut-off
    gzip stream, a broken JSON array), the last row is a `Refusal` that ends the file.

    Args:
        path: a .jsonl, .json or .csv file, plain or gzip, a .parquet file, or a folder of `datasets`.

    Raises:
        InputRefused: the file is missing, empty, of an unknown kind, or nothing in it can be read.
    """
    last = 0
    try:
        for row in _reader(path)():
            last = row.line
            yield row
    except (InputRefused, ijson.JSONError, UnicodeDecodeError, *DAMAGE) as error:
        if not last:
            raise InputRefused(f"{path.name}: {_why(error)}") from error
        reason = f"{_why(error)}; read up to row {last}, nothing after it; get a complete copy and import again"
        yield Row(last + 1, Refusal(reason, ends_file=True), size(path))
    if not last:
        raise InputRefused(f"{path.name}: no rows; expected at least one; check that the download is complete")


def size(path: Path) -> int:
    """Bytes on disk, against which `Row.bytes_done` counts."""
    return folder_bytes(path) if path.is_dir() else path.stat().st_size


def plain_name(path: Path) -> str:
    """The file's name without its endings, the same for `a.jsonl` and `a.jsonl.gz`."""
    name = path.name.removesuffix(".gz")
    suffix = Path(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in KINDS else name


def _reader(path: Path) -> Callable[[], Iterator[Row]]:
    if not path.exists():
        raise InputRefused(f"no such file or folder ({path}); check the path")
    if path.is_dir():
        return lambda: datasets_rows(path)
    kind = Path(path.name.removesuffix(".gz")).suffix.lower()
    if kind not in KINDS:
        raise InputRefused(f"unknown kind of file {kind or 'without an ending'!r}; known are {KNOWN}")
    if kind == ".parquet":
        return lambda: parquet_rows(path)
    return lambda: _text_rows(path, kind)


def _text_rows(path: Path, kind: str) -> Iterator[Row]:
    read = {".jsonl": json_lines, ".json": json_array, ".csv": csv_rows}[kind]
    if kind == ".json":
        with Stream(path) as stream:
            read = json_lines if looks_like_lines(stream) else json_array
    with Stream(path) as stream:
        yield from read(stream)


def _why(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "the gzip stream is cut off"
    if isinstance(error, DAMAGE):
        return f"the gzip stream is damaged ({error})"
    if isinstance(error, ijson.JSONError):
        return f"not JSON from there on ({str(error).splitlines()[0]})"
    return str(error)
