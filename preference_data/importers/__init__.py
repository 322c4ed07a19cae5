"""Preferences from files of public formats. A new format is one file here, or an entry point elsewhere."""

from preference_data.importers.importer import ENTRY_POINTS, Importer, Source
from preference_data.importers.importing import ImportReport, Nowhere, import_file
from preference_data.importers.registry import importers, named, sniff

__all__ = [
    "ENTRY_POINTS",
    "ImportReport",
    "Importer",
    "Nowhere",
    "Source",
    "import_file",
    "importers",
    "named",
    "sniff",
]
