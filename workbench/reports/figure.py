"""A figure: drawn, and the same numbers as a table, for where no drawing is shown."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from workbench.drift.uncertainty import Estimate
from workbench.reports.charts import Bar, Line, Spot, lines, rows, spots
from workbench.views.kept import Key
from workbench.views.records import NOT_MEASURED

NOTHING = "not enough data yet: nothing here was measured"
Said = tuple[str, str, str]
"""Key, title and note of a figure."""
Table = tuple[tuple[str, ...], tuple[tuple[str, tuple[Estimate, ...]], ...]]


class Figure(NamedTuple):
    """A figure.

    Attributes:
        key: names it in addresses.
        title: what it shows, as a sentence people can look for.
        note: how to read it, and what was left out.
        drawn: None where there is not enough to draw; `why` then says so.
        numbers: what it shows, by policy, name and suite.
        heads: of its table: the unit, or nothing, then what each number of a row is.
        table: what is drawn, as rows: a name and its numbers.
    """

    key: str
    title: str
    note: str
    drawn: Markup | None
    why: str
    numbers: tuple[Key, ...]
    heads: tuple[str, ...]
    table: tuple[tuple[str, tuple[Estimate, ...]], ...]


def of_lines(said: Said, given: Sequence[Line], keys: Sequence[Key], unit: str, *, zero: bool = False) -> Figure:
    """A figure of lines over rounds; the table has a row per round and a column per line."""
    drawn = lines(given, title=said[1], unit=unit, zero=zero)
    shown = [line for line in given if any(point.value.value is not None for point in line.points)]
    names = {point.x: point.name for line in shown for point in line.points}
    numbers = [{point.x: point.value for point in line.points} for line in shown]
    table = tuple((names[x], tuple(one.get(x, NOT_MEASURED) for one in numbers)) for x in sorted(names))
    return _figure(said, drawn, keys, ((unit, *(line.name for line in shown)), table))


def of_rows(said: Said, bars: Sequence[Bar], keys: Sequence[Key], unit: str) -> Figure:
    """A figure of one number per row."""
    table = tuple((bar.name, (bar.value,)) for bar in bars)
    return _figure(said, rows(bars, title=said[1], unit=unit), keys, (("", unit), table))


def of_spots(
    said: Said, given: Sequence[Spot], keys: Sequence[Key], units: tuple[str, str], *, why: str = NOTHING
) -> Figure:
    """A figure of two numbers of each thing; `why` is told where fewer than two things have both."""
    table = tuple((spot.name, (spot.across, spot.up)) for spot in given)
    return _figure(said, spots(given, title=said[1], units=units), keys, (("", *units), table), why=why)


def _figure(said: Said, drawn: Markup | None, keys: Sequence[Key], table: Table, *, why: str = NOTHING) -> Figure:
    return Figure(*said, drawn, "" if drawn is not None else why, tuple(dict.fromkeys(keys)), *table)
