"""A policy's report as one HTML file that opens offline, and as Markdown."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from html import escape
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from workbench.drift.uncertainty import format_estimate, said
from workbench.places import Places
from workbench.rebasing import to_copy
from workbench.reports.figure import Figure
from workbench.reports.figures import nowhere
from workbench.reports.story import Criterion, Story, story
from workbench.reports.turned import QUARTERS, TURNED
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
        flipped=_flipped(places, view) if view.rounds else [], plan=plan_text(told), turned=TURNED, quarters=QUARTERS,
    )  # fmt: skip


def markdown_report(places: Places, policy: str) -> str:
    """The same as text, for where no page is shown: figures are tables of what they draw."""
    told, averages = _told(places, policy)
    view, newest = told.view, told.view.policies[-1]
    lines = [f"# {_cell(newest.name)}: what it gained, what it cost", "", f"{view.rounds} rounds from {_cell(view.policies[0].name)}. "
             "Intervals are 95 %.", ""]  # fmt: skip
    lines += [f"- {_cell(line)}" for line in told.said]
    if told.criteria:
        heads = ("criterion", "verdict", "threshold", "value", "why")
        lines += ["", f"## {told.gate}", *_table(heads, [_criterion(one) for one in told.criteria])]
    lines += ["", "## What to do next", "", *(f"- {_cell(step)}" for step in told.steps)]
    lines += ["", "## Retention and tax", *_matrix(told)]
    lines += ["", "## Pairs that turned, against the parent", *_turned(told)] if told.turned else []
    lines += ["", "## Averages over all rounds", ""]
    lines += [f"- {one.name}: {_value(one)} ({one.convention})" for one in averages]
    lines += ["", "## Figures", *(line for one in told.figures for line in _figure(one))]
    if flipped := _flipped(places, view) if view.rounds else []:
        rows = [[row[name] for name in ("version", "prompt", "chosen", "rejected")] for row in flipped]
        lines += ["", "## Pairs it gets wrong now and got right before"]
        lines += _table(("version", "prompt", "preferred", "not preferred"), rows)
    if plan := plan_text(told):
        lines += ["", "## The plan of this round", "", "```toml", plan.rstrip("\n"), "```"]
    return "\n".join(lines) + "\n"


def _criterion(one: Criterion) -> list[str]:
    threshold = "" if one.threshold is None else f"{one.threshold:g}"
    return [one.name, "pass" if one.passed else "FAIL", threshold, one.value, one.reason]


def _matrix(told: Story) -> Iterator[str]:
    """Every cell of the matrix with its interval and n, in percent and points."""
    yield from ("", "Accuracy in percent on held-out pairs of every version, then the tax of every suite in points and the share "
                "of probes refused; ▾ is worse than the parent by more than may be chance.")  # fmt: skip
    heads = ["version", *("base" if not p.round else str(p.round) for p in told.grid.columns)]
    rows: list[list[str]] = []
    for row in told.grid.rows:
        values = [told.view.number(p.digest, row.number, row.suite) for p in told.grid.columns]
        cells = [
            cell.text
            if value.value is None
            else format_estimate(value.scaled(100), digits=1, signed=row.number == "tax")
            for value, cell in zip(values, row.cells, strict=True)
        ]
        marks = [" ▾" if "fell" in cell.kind.split() else "" for cell in row.cells]
        rows.append([row.name, *map("".join, zip(cells, marks, strict=True))])
    yield from _table(heads, rows)


def _turned(told: Story) -> Iterator[str]:
    """What the newest round turned of every version, the share lost of each quarter with its interval and n."""
    yield from ("", TURNED)
    heads = ("version", "right, then wrong (b)", "wrong, then right (c)", "pairs", "p", *(f"lost, {q} quarter" for q in QUARTERS),
             "change of accuracy")  # fmt: skip
    yield from _table(heads, [[one.name, one.lost, one.gained, one.n, one.p, *(q.told for q in one.quarters), one.change]
                              for one in told.turned])  # fmt: skip


def _figure(one: Figure) -> Iterator[str]:
    yield from ("", f"### {_cell(one.title)}", "", _cell(one.note))
    if one.drawn is None:
        yield from ("", _cell(one.why))
    else:
        yield from _table(one.heads, [[name, *map(said, values)] for name, values in one.table])


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield from ("", f"| {' | '.join(map(_cell, heads))} |", f"|{'---|' * len(heads)}")
    yield from (f"| {' | '.join(map(_cell, row))} |" for row in rows)


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
    """Text in a table; what would be markup, a link or an image to whoever shows the Markdown is none."""
    plain = escape(" ".join(text.splitlines()), quote=False).replace("\\", "\\\\")
    return plain.replace("|", "\\|").replace("](", "]\\(")
