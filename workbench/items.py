"""Measured items as the file an evaluation writes and the ledger reads."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from workbench.tasks import Item

FILE = "items.jsonl"


def write_items(folder: Path, items: Iterable[Item]) -> None:
    """One measured number per line."""
    with (folder / FILE).open("w", encoding="utf-8") as file:
        for item in items:
            file.write(json.dumps(item._asdict(), sort_keys=True, ensure_ascii=False) + "\n")


def read_items(folder: Path) -> Iterator[Item]:
    """The items an evaluation wrote."""
    with (folder / FILE).open(encoding="utf-8") as file:
        for line in file:
            yield Item(**json.loads(line))
