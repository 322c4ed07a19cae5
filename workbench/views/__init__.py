"""Read-only answers for people: what the rounds of a lineage gained, lost and moved."""

from workbench.views.records import DriftReport, NamedVersion, as_json
from workbench.views.report import drift_report
from workbench.views.sentences import change_lines, next_steps

__all__ = ["DriftReport", "NamedVersion", "as_json", "change_lines", "drift_report", "next_steps"]
