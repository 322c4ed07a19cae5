"""Rows of Parquet files and of folders written by `datasets.save_to_disk`, a batch at a time.

The folders hold Arrow streams, so pyarrow reads them; `datasets` itself is not needed.
"""

# pyarrow has no types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false

import json
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Any, cast

import pyarrow as pa
from pyarrow import ipc, parquet

from preference_data.errors import InputRefused
from preference_data.json_rows import checked
from preference_data.streams import FREE_BYTES, MAX_RATIO, Refusal, Row

BATCH_ROWS = 256
"""Rows decoded at a time; at 16 MiB for the largest row allowed, a batch of usual rows is a few megabytes."""

STATE = "state.json"
SPLITS = "dataset_dict.json"


def parquet_rows(path: Path) -> Iterator[Row]:
    """Rows of a Parquet file.

    Raises:
        InputRefused: the file is no Parquet, is damaged, or unpacks to far too much.
    """
    size = path.stat().st_size
    try:
        with parquet.ParquetFile(path) as file:
            groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
            unpacked = sum(group.total_byte_size for group in groups)
            if unpacked > max(FREE_BYTES, MAX_RATIO * size):
                raise InputRefused(f"unpacks to {unpacked:,} bytes, over {MAX_RATIO} times its size; refused as a bomb")
            batches = file.iter_batches(batch_size=BATCH_ROWS)
            yield from _numbered((batch, size * batch.num_rows // file.metadata.num_rows) for batch in batches)
    except (pa.ArrowException, OSError) as error:
        raise InputRefused(f"no readable Parquet ({error}); write the file again") from error


def datasets_rows(folder: Path) -> Iterator[Row]:
    """Rows of a folder written by `datasets.save_to_disk`; of all splits, if it has several.

    Raises:
        InputRefused: the folder is no such folder, or a file named in it is missing or damaged.
    """
    yield from _numbered(_arrow_batches(_arrow_files(folder)))


def folder_bytes(folder: Path) -> int:
    """Bytes of the Arrow files of such a folder."""
    return sum(file.stat().st_size for file in _arrow_files(folder))


def _arrow_files(folder: Path) -> list[Path]:
    try:
        if (folder / SPLITS).exists():
            names = json.loads((folder / SPLITS).read_text("utf-8"))["splits"]
            return [file for name in names for file in _arrow_files(folder / PurePath(name).name)]
        state = json.loads((folder / STATE).read_text("utf-8"))
        files = [folder / PurePath(part["filename"]).name for part in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputRefused(
            f"not a folder written by datasets.save_to_disk ({error}); expected {STATE} or {SPLITS}"
        ) from error
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise InputRefused(f"{missing[0]} is missing; copy the whole folder and import again")
    return files


def _arrow_batches(files: Iterable[Path]) -> Iterator[tuple[pa.RecordBatch, int]]:
    for file in files:
        at = 0
        try:
            with pa.memory_map(str(file)) as source, ipc.open_stream(source) as batches:
                for batch in batches:
                    parts = [batch.slice(at, BATCH_ROWS) for at in range(0, batch.num_rows, BATCH_ROWS)]
                    moved, at = source.tell() - at, source.tell()
                    yield from ((part, moved * part.num_rows // batch.num_rows) for part in parts)
        except (pa.ArrowException, OSError) as error:
            raise InputRefused(f"{file.name}: no readable Arrow stream ({error}); write the folder again") from error


def _numbered(batches: Iterable[tuple[pa.RecordBatch, int]]) -> Iterator[Row]:
    """Rows of batches, each batch with the bytes it took up in the file."""
    number, bytes_done = 0, 0
    for batch, taken in batches:
        bytes_done += taken
        for value in batch.to_pylist():
            number += 1
            yield Row(number, _json_row(value), bytes_done)


def _json_row(value: object) -> dict[str, Any] | Refusal:
    try:
        return checked(_as_json(value))
    except TypeError as error:
        return Refusal(str(error))


def _as_json(value: object) -> object:
    """A cell as JSON would hold it."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case dict():
            return {str(k): _as_json(v) for k, v in cast("dict[object, object]", value).items()}
        case list():
            return [_as_json(v) for v in cast("list[object]", value)]
        case datetime() | date():
            return value.isoformat()
        case Decimal():
            return float(value)
        case _:
            raise TypeError(f"holds a {type(value).__name__}; expected text, numbers, lists; drop the column")
