"""What verbs print: tables for people, JSON for programs."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

SHORT = 12
"""Characters of a digest that people see."""


def out() -> Console:
    """Standard output as it is now."""
    return Console(highlight=False, soft_wrap=False)


def err() -> Console:
    """Standard error as it is now; progress goes there."""
    return Console(stderr=True, highlight=False)


def result(value: Any, *, as_json: bool, render: Callable[[Console], None]) -> None:
    """Print a verb's result, once: as JSON, or as `render` draws it."""
    if as_json:
        typer.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))
    else:
        render(out())


def plain(value: Any) -> Any:
    """A result as JSON values: records become objects, paths text."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    elif is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Group:
    """A table under its title. Text is shown as it is, never as markup.

    Args:
        title: empty for none.
        columns: `#name` for a column of numbers, `=name` for one whose cells are never broken over two lines.
        rows: cells, shown as text.
    """
    made = Table(box=box.SIMPLE_HEAD, header_style="bold", show_header=any(columns))
    for column in columns:
        kind, name = (column[0], column[1:]) if column[:1] in {"#", "="} else ("", column)
        made.add_column(name, justify="right" if kind == "#" else "left", no_wrap=kind != "", overflow="fold")
    for row in rows:
        made.add_row(*(escape(str(cell)) for cell in row))
    return Group(Text(title, style="bold"), made) if title else Group(made)


def short(digest: str | None) -> str:
    """The first characters of a digest; empty where there is none."""
    return (digest or "")[:SHORT]


def size(count: float) -> str:
    """Bytes as people read them.

    >>> size(1536)
    '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
