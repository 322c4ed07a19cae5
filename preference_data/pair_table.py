"""Pairs and single answers as canonical rows, and the rows as parquet tables."""

# pyarrow has no types:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from preference_data.errors import VersionError
from preference_data.records import Message, Pair, Prompt, Single, Split

_TEXT = pa.string()
_SCHEMA = pa.schema(
    [
        ("key", _TEXT),
        ("prompt", pa.list_(pa.struct([("role", _TEXT), ("content", _TEXT)]))),
        ("chosen", _TEXT),
        ("rejected", _TEXT),
        ("weight", pa.float64()),
        ("strength", pa.float64()),
        ("judgements", pa.list_(_TEXT)),
        ("slices", pa.map_(_TEXT, _TEXT)),
        ("split", _TEXT),
    ]
)
_OF_PAIRS = ("chosen", "rejected", "strength")
_SINGLES = pa.schema(
    [("completion", _TEXT), ("good", pa.bool_()), *(field for field in _SCHEMA if field.name not in _OF_PAIRS)]
)


def row_of(record: Pair | Single) -> dict[str, Any]:
    """A pair or a single answer as plain values: what is hashed and what is stored."""
    match record:
        case Pair():
            strength = None if record.strength is None else float(record.strength)
            own = {"chosen": record.chosen, "rejected": record.rejected, "strength": strength}
        case Single():
            own = {"completion": record.completion, "good": record.good}
    return {
        "key": record.key,
        "prompt": [{"role": m.role, "content": m.content} for m in record.prompt.messages],
        **own,
        "weight": float(record.weight),
        "judgements": list(record.judgements),
        "slices": sorted(record.slices.items()),
        "split": record.split,
    }


def pair_of(row: Mapping[str, Any]) -> Pair:
    """The inverse of `row_of`."""
    return Pair(chosen=row["chosen"], rejected=row["rejected"], strength=row["strength"], **_shared(row))


def _shared(row: Mapping[str, Any]) -> dict[str, Any]:
    """What pairs and single answers have in common."""
    return {
        "prompt": Prompt(tuple(Message(m["role"], m["content"]) for m in row["prompt"])),
        "weight": row["weight"],
        "judgements": tuple(row["judgements"]),
        "slices": dict(row["slices"]),
        "split": row["split"],
    }


ROWS_AT_ONCE = 10_000


def write_rows(rows: Iterable[Mapping[str, Any]], target: Path, *, singles: bool = False) -> None:
    """Write rows as parquet, some at a time.

    Raises:
        OSError: the file cannot be written.
    """
    schema = _SINGLES if singles else _SCHEMA
    with pq.ParquetWriter(target, schema) as writer:
        left = iter(rows)
        while part := list(islice(left, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(part, schema=schema))


def read_pairs(source: Path, split: Split | None = None, *, keys: Sequence[str] = ()) -> list[Pair]:
    """The pairs of one split, or all, or those of some keys, in the order of the file.

    Raises:
        VersionError: the file is gone or is no such table.
    """
    wanted: list[tuple[str, str, Any]] = [] if split is None else [("split", "==", split)]
    if keys:
        wanted.append(("key", "in", list(keys)))
    return [pair_of(row) for row in _read(source, _SCHEMA, wanted)]


def read_singles(source: Path, split: Split | None = None) -> list[Single]:
    """The single answers of one split, or all, in the order of the file.

    Raises:
        VersionError: the file is gone or is no such table.
    """
    rows = _read(source, _SINGLES, [] if split is None else [("split", "==", split)])
    return [Single(completion=row["completion"], good=row["good"], **_shared(row)) for row in rows]


def _read(source: Path, schema: Any, wanted: list[tuple[str, str, Any]]) -> list[dict[str, Any]]:
    try:
        return pq.read_table(source, schema=schema, filters=wanted or None).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise VersionError(f"{source}: cannot be read ({error}); restore it from a copy or freeze again") from error


def read_judgements(source: Path) -> list[list[str]]:
    """Keys of the judgements behind every pair, in the order of the file.

    Raises:
        VersionError: the file is gone or is no such table.
    """
    try:
        return pq.read_table(source, columns=["judgements"])["judgements"].to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise VersionError(f"{source}: cannot be read ({error}); restore it from a copy or freeze again") from error
