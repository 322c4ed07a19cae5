"""Preferences to files of public formats. A new format is one file here and the importer that reads it back."""

from preference_data.exporters.exporter import Exporter
from preference_data.exporters.exporting import EXPORTERS, ExportReport, export

__all__ = ["EXPORTERS", "ExportReport", "Exporter", "export"]
