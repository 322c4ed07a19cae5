"""What an importer is. One made elsewhere is an `Importer` under the entry-point group `ENTRY_POINTS`."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from preference_data.store import Entry

ENTRY_POINTS = "continual_alignment.importers"


class Source(NamedTuple):
    """The file being imported.

    Attributes:
        name: its name without endings; becomes the comparisons' source.
        at: when it is imported, UTC; the time of judgements whose row gives none.
    """

    name: str
    at: datetime

    @property
    def annotator(self) -> str:
        """Handle of whoever judged, where the file names nobody."""
        return f"import:{self.name}"


class Importer(NamedTuple):
    """A public format.

    Attributes:
        name: what `--format` calls it.
        sniff: whether a row has this format's fields; its values may be faulty.
        convert: a row as records; raises RowRefused naming field, value and what was expected.
    """

    name: str
    sniff: Callable[[dict[str, Any]], bool]
    convert: Callable[[dict[str, Any], Source], list[Entry]]
