"""Formats by name, and the format of a file by the look of its rows."""

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

from preference_data.errors import InputRefused
from preference_data.importers import alpaca, arena, helpsteer3, hh, openai, sharegpt, trl, ultrafeedback
from preference_data.importers.importer import ENTRY_POINTS, Importer
from preference_data.streams import Refusal, Row

BUILT_IN = (
    openai.OPENAI,
    helpsteer3.HELPSTEER3,
    arena.ARENA,
    sharegpt.PREFERENCE,
    sharegpt.KTO,
    alpaca.ALPACA,
    hh.QUERY,
    hh.TRANSCRIPT,
    ultrafeedback.ULTRAFEEDBACK,
    trl.UNPAIRED,
    trl.PREFERENCE,
)
"""From the most particular to the most general: the first that knows a file's rows gets it."""


def importers() -> dict[str, Importer]:
    """Every format known here, by name; those of installed packages come first.

    Raises:
        InputRefused: two formats bear one name, or an entry point does not lead to an importer.
    """
    found: dict[str, Importer] = {}
    for point in entry_points(group=ENTRY_POINTS):
        made = point.load()
        if not isinstance(made, Importer):
            raise InputRefused(f"entry point {point.value} is a {type(made).__name__}; expected an Importer")
        found[made.name] = made
    twice = found.keys() & {importer.name for importer in BUILT_IN}
    if twice:
        raise InputRefused(f"format {twice.pop()!r} comes along and from a package; rename the package's")
    return found | {importer.name: importer for importer in BUILT_IN}


def named(name: str) -> Importer:
    """The format of that name.

    Raises:
        InputRefused: there is none.
    """
    known = importers()
    if name not in known:
        raise InputRefused(f"unknown format {name!r}; known formats: {', '.join(known)}; others need a mapping file")
    return known[name]


def sniff(first: Sequence[Row], file: str) -> Importer:
    """The format most of the first rows have.

    Raises:
        InputRefused: none of them is readable, or no format knows their fields.
    """
    good: list[dict[str, Any]] = [row.value for row in first if not isinstance(row.value, Refusal)]
    if not good:
        reason = next(row.value.reason for row in first if isinstance(row.value, Refusal))
        raise InputRefused(f"{file}: none of the first {len(first)} rows is readable; line {first[0].line}: {reason}")
    known = importers()
    for importer in known.values():
        if sum(importer.sniff(row) for row in good) * 2 > len(good):
            return importer
    raise InputRefused(
        f"{file}: unknown format with the fields {', '.join(sorted(good[0]))}; known formats: {', '.join(known)}; "
        "write a mapping file that says what the fields mean"
    )
