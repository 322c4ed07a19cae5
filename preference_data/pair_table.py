"""Pairs as canonical rows, and the rows as a parquet table."""

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
from preference_data.records import Message, Pair, Prompt, Split

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


def row_of(pair: Pair) -> dict[str, Any]:
    """A pair as plain values: what is hashed and what is stored."""
    return {
        "key": pair.key,
        "prompt": [{"role": m.role, "content": m.content} for m in pair.prompt.messages],
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "weight": float(pair.weight),
        "strength": None if pair.strength is None else float(pair.strength),
        "judgements": list(pair.judgements),
        "slices": sorted(pair.slices.items()),
        "split": pair.split,
    }


def pair_of(row: Mapping[str, Any]) -> Pair:
    """The inverse of `row_of`."""
    return Pair(
        prompt=Prompt(tuple(Message(m["role"], m["content"]) for m in row["prompt"])),
        chosen=row["chosen"],
        rejected=row["rejected"],
        weight=row["weight"],
        strength=row["strength"],
        judgements=tuple(row["judgements"]),
        slices=dict(row["slices"]),
        split=row["split"],
    )


ROWS_AT_ONCE = 10_000


def write_rows(rows: Iterable[Mapping[str, Any]], target: Path) -> None:
    """Write rows as parquet, some at a time.

    Raises:
        OSError: the file cannot be written.
    """
    with pq.ParquetWriter(target, _SCHEMA) as writer:
        left = iter(rows)
        while part := list(islice(left, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(part, schema=_SCHEMA))


def read_pairs(source: Path, split: Split | None = None, *, keys: Sequence[str] = ()) -> list[Pair]:
    """The pairs of one split, or all, or those of some keys, in the order of the file.

    Raises:
        VersionError: the file is gone or is no such table.
    """
    wanted: list[tuple[str, str, Any]] = [] if split is None else [("split", "==", split)]
    if keys:
        wanted.append(("key", "in", list(keys)))
    try:
        return [pair_of(row) for row in pq.read_table(source, schema=_SCHEMA, filters=wanted or None).to_pylist()]
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
