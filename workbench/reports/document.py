"""A policy's report as one HTML file that opens offline, and as Markdown."""

from functools import cache
from html import escape
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from workbench.drift.uncertainty import format_estimate
from workbench.places import Places
from workbench.rebasing import to_copy
from workbench.reports.figures import nowhere
from workbench.reports.story import Story, story
from workbench.views.averages import averages_of
from workbench.views.inspection import Inspection, Overview
from workbench.views.records import Average
from workbench.views.rows import Found, Wanted, find_rows

CSS = Path(__file__).with_name("report.css")
LEVELS = ("Last", "AP")
"""Averages that are no change."""
FLIPPED = 10
"""Pairs shown that a round made worse."""


@cache
def templates() -> Environment:
    """Templates of this package; whatever they are given is escaped."""
    return Environment(loader=PackageLoader("workbench.reports"), autoescape=True, undefined=StrictUndefined,
                       trim_blocks=True, lstrip_blocks=True)  # fmt: skip


def html_report(places: Places, policy: str) -> str:
    """Everything about a policy and its lineage in one page, with nothing loaded from elsewhere.

    Args:
        places: the workspace.
        policy: as `registry.resolve` takes it.

    Raises:
        PolicyError: nothing or several policies answer to the name.
    """
    told, averages = _told(places, policy)
    view = told.view
    return templates().get_template("report.html").render(
        story=told, newest=view.policies[-1], css=CSS.read_text(encoding="utf-8"), averages=_named(averages),
        flipped=list(_flipped(places, view)) if view.rounds else [], plan=plan_text(told),
    )  # fmt: skip


def markdown_report(places: Places, policy: str) -> str:
    """The same as text, for where no page is shown: figures are tables."""
    told, averages = _told(places, policy)
    view, newest = told.view, told.view.policies[-1]
    lines = [f"# {_cell(newest.name)}: what it gained, what it cost", "", f"{view.rounds} rounds from {view.policies[0].name}. "
             "Intervals are 95 %.", ""]  # fmt: skip
    lines += [f"- {_cell(line)}" for line in told.said]
    if told.criteria:
        lines += ["", f"## {told.gate}", ""]
        lines += ["| criterion | verdict | threshold | value | why |", "|---|---|---|---|---|"]
        lines += [
            f"| {_cell(c.name)} | {'pass' if c.passed else 'FAIL'} | {'' if c.threshold is None else f'{c.threshold:g}'} "
            f"| {_cell(c.value)} | {_cell(c.reason)} |"
            for c in told.criteria
        ]
    lines += [
        "",
        "## What to do next",
        "",
        *(f"- {_cell(step)}" for step in told.steps),
        "",
        "## Retention and tax",
        "",
    ]
    heads = ["version", *("base" if not p.round else str(p.round) for p in told.grid.columns)]
    lines += [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {_cell(row.name)} | {' | '.join(c.text for c in row.cells)} |" for row in told.grid.rows]
    lines += ["", "## Averages over all rounds", ""]
    lines += [f"- {one.name}: {_value(one)} ({one.convention})" for one in averages]
    return "\n".join(lines) + "\n"


def plan_text(told: Story) -> str:
    """The settings of the round that made it, as a file to copy; empty where none did."""
    return to_copy(told.record.plan) if told.record else ""


def _told(places: Places, policy: str) -> tuple[Story, tuple[Average, ...]]:
    inspection = Inspection(places)
    view = inspection.overview(policy)
    return story(inspection, view, nowhere), averages_of(view, places.ledger)


def _named(averages: tuple[Average, ...]) -> list[dict[str, str]]:
    return [{"name": one.name, "value": _value(one), "convention": one.convention} for one in averages]


def _value(one: Average) -> str:
    return format_estimate(one.value, signed=one.name not in LEVELS)


def _flipped(places: Places, view: Overview) -> list[dict[str, str]]:
    """Pairs of earlier versions that the newest round made wrong, the furthest fallen of each."""
    newest, parent = view.policies[-1], view.policies[-2]
    earlier = [v for v in view.trained if v.digest != newest.version]
    found: list[dict[str, str]] = []
    for version in earlier:
        wanted = Wanted(newest.digest, parent.digest, "from parent", f"retention/{version.digest}",
                        view.condition or "", turn="lost")  # fmt: skip
        rows: Found = find_rows(places, wanted, count=max(1, FLIPPED // len(earlier)))
        found += [{"version": version.name, **row.texts} for row in rows.rows if "prompt" in row.texts]
    return found[:FLIPPED]


def _cell(text: str) -> str:
    """Text in a table; what would be markup to whoever shows the Markdown is none."""
    return escape(text, quote=False).replace("|", "\\|").replace("\n", " ")
