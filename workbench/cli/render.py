"""A drift report for the terminal: readable at 80 columns and without colour."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from workbench.cli.show import short
from workbench.drift.uncertainty import Estimate, format_estimate
from workbench.reports.story import judged_by
from workbench.rounds.gate import Verdict
from workbench.views import DriftReport, change_lines, next_steps
from workbench.views.records import Cell, Divergence, Example, PolicyView

CELL_COLUMNS = 15
"""Width of one version in the retention matrix; beyond what fits, the matrix goes on below."""

LABEL_COLUMNS = 12
EXCERPT = 300
"""Characters shown of an answer."""

SHOWN_EXAMPLES = 2
NEWEST = 2
"""Rounds shown in full; of earlier ones the retention matrix and the tax."""

LEVELS = ("Last", "AP")
"""Averages that are no change."""

TAX_COLUMNS = ("suite", "policy", "#level", "#against base", "#against parent", "#flips", "#p")
ANSWER_COLUMNS = ("policy", "prompts", "#tokens", "#from base", "#distinct-2", "#finished", "#refused")

Row = Sequence[str | Text]


def render_report(
    console: Console,
    report: DriftReport,
    verdict: Verdict | Mapping[str, Any] | None = None,
    *,
    judged: str = "child",
    aside: Sequence[str] = (),
) -> None:
    """Print what the rounds of a lineage gained, lost and moved, and what to do next.

    Args:
        console: where to.
        report: the lineage.
        verdict: what the gate said of its newest policy, as judged or as the journal keeps it; None where it did not.
        judged: what the gate judged, as the plan of the round has it.
        aside: further things to do next.
    """
    stored = verdict.as_json() if isinstance(verdict, Verdict) else verdict
    _title(console, report)
    if report.condition is None:
        console.print("Nothing has been measured of these policies yet.")
    else:
        _matrix(console, report)
        _gains(console, report)
        _taxes(console, report)
        _divergences(console, report)
        _answers(console, report)
        _examples(console, report)
    if stored is not None:
        _verdict(console, report, stored, judged)
    _heading(console, "What to do next")
    for k, step in enumerate(next_steps(report, stored, elsewhere=aside), start=1):
        _item(console, f"{k}.", step)


def _title(console: Console, report: DriftReport) -> None:
    newest = report.policies[-1]
    _heading(console, f"Drift of {newest.name} over {_count(report.rounds, 'round')}")
    for policy in report.policies:
        _item(console, _label(policy.round), _described(report, policy), width=9)
    if report.condition is not None:
        _note(console, f"Intervals are 95 %. Measured under condition {report.condition}.")
    if _since(report) > 1:
        _note(console, f"In full: rounds from {_since(report)}; of earlier ones matrix and tax. `--json` has all.")


def _described(report: DriftReport, policy: PolicyView) -> str:
    trained = report.versions[policy.round - 1].name if policy.round else ""
    anchors = ", ".join(f"{_policy(report, digest)} {weight:g}" for digest, weight in policy.anchors.items())
    facts = (
        f"{policy.name} ({short(policy.digest)})",
        f"{'answered the prompts of' if policy.online else 'trained on'} '{trained}'" if trained else "",
        f"learned from its own answers by {policy.online}" if policy.online else "",
        f"anchored to {anchors}" if anchors else "",
        "champion" if policy.champion else "",
    )
    return ", ".join(fact for fact in facts if fact)


def _matrix(console: Console, report: DriftReport) -> None:
    """Rows are policies, columns versions."""
    if not report.versions:
        return
    _heading(console, "Retention: accuracy on held-out pairs of every version")
    fitting = max(1, (console.width - LABEL_COLUMNS) // CELL_COLUMNS)
    for start in range(0, len(report.versions), fitting):
        part = slice(start, start + fitting)
        heads = [f"{v.name}\n{_pairs(report, start + k)}" for k, v in enumerate(report.versions[part])]
        rows = [[_label(p.round), *map(_cell, row[part])] for p, row in zip(report.policies, report.cells, strict=True)]
        console.print(_table(["policy", *(f"#{head}" for head in heads)], rows))
    answered = ", or answered its prompts" if any(p.online for p in report.policies) else ""
    _note(console, f"* trained on this version{answered}. up: share of pairs whose margin rose over the base's.")
    _by_answer(console, report)


def _cell(cell: Cell) -> Text:
    value = cell.accuracy
    if value.value is None:
        return Text(_missing(value))
    text = Text(f"{value.value:.2f}{'*' if cell.own else ' '}", style="bold" if cell.own else "")
    text.append(f"\n[{value.low:.2f}, {value.high:.2f}] ", style="not bold")
    if cell.above_base.value is not None:
        text.append(f"\nup {cell.above_base.value:.2f} ", style="not bold dim")
    return text


def _by_answer(console: Console, report: DriftReport) -> None:
    """Yes and No apart: a shifted prior moves one up and the other down."""
    found = sorted(
        ((cell.version, answer, cell.round) for row in report.cells for cell in row for answer in cell.by_answer),
    )
    if found:
        rows = [
            (report.versions[i].name, answer, _label(after), _value(report.cells[after][i].by_answer[answer]))
            for i, answer, after in found
        ]
        _note(console, "By the answer preferred, where answers are few:")
        console.print(_table(["version", "answer", "policy", "accuracy"], rows, merged=2))


def _gains(console: Console, report: DriftReport) -> None:
    if not report.rounds:
        return
    _heading(console, "Gained and lost, against the parent")
    for line in change_lines(report, since=_since(report)):
        _item(console, "-", line, style="green" if " gained " in line else "red" if " lost " in line else "")
    names = {version.digest: version.name for version in report.versions}
    for one in report.singles:
        said = f"AUC {_value(one.value)}, from its parent {format_estimate(one.change, signed=True)}"
        if _is_shown(report, one.round):
            _item(
                console,
                "-",
                f"{_label(one.round)} on single answers of '{names.get(one.version, '')}', good over bad: {said}",
            )
    if report.rounds > 1:
        for one in report.averages:
            value = format_estimate(one.value, signed=one.name not in LEVELS)
            _item(console, "-", f"{one.convention}: {value}")


def _taxes(console: Console, report: DriftReport) -> None:
    if not report.taxes:
        return
    _heading(console, "Alignment tax: capability lost, in %")
    rows = [
        (
            one.name,
            _label(one.round),
            _mean(one.level, digits=3),
            *((_percent(one.tax), _percent(one.step_tax)) if one.round else ("", "")),
            *((f"-{one.flips.lost} +{one.flips.gained}", f"{one.flips.p:.2f}") if one.flips else ("", "")),
        )
        for one in report.taxes
    ]
    console.print(_table(TAX_COLUMNS, rows, merged=1))
    _note(console, "Positive means lost. Level: accuracy, of text bits per byte. Flips against base, McNemar p.")


def _percent(tax: Estimate) -> Text:
    """A share in percent; red where surely lost, green where surely gained."""
    if tax.value is None or tax.low is None or tax.high is None:
        return Text(_missing(tax))
    style = "red" if tax.low > 0 else "green" if tax.high < 0 else ""
    return Text(f"{100 * tax.value:+z.1f} [{100 * tax.low:z.1f}, {100 * tax.high:z.1f}]", style=style)


def _divergences(console: Console, report: DriftReport) -> None:
    if not report.divergences:
        return
    _heading(console, "Drift: KL on the policy's own answers, nats per token")
    rows = [
        (
            _label(one.round),
            _other(report, one),
            _prompts(report, one.version, one.prompts),
            _value(one.value, digits=3)
            + (f"\nback {_spread(one.back, digits=3)}" if one.back.value is not None else ""),
        )
        for one in report.divergences
        if one.round >= _since(report)
    ]
    console.print(_table(["of", "to", "prompts", "KL"], rows, merged=2))
    _note(console, "KL(of || to); back: KL(to || of), at the same positions of its own answers.")


def _other(report: DriftReport, one: Divergence) -> str:
    name = _policy(report, one.other)
    roles = [role for role in one.roles if role != name]
    return f"{name} ({', '.join(roles)})" if roles else name


def _answers(console: Console, report: DriftReport) -> None:
    if report.answers:
        _heading(console, "Answers to held-out prompts")
        rows = [
            (
                _label(one.round),
                _prompts(report, one.version, one.prompts if one.round else ""),
                _mean(one.length, digits=1),
                _change(one.length_change, digits=1) if one.round else "",
                *(_mean(value) for value in (one.distinct_2, one.finished, one.refused)),
            )
            for one in report.answers
            if _is_shown(report, one.round)
        ]
        console.print(_table(ANSWER_COLUMNS, rows, merged=1))
    scored = list(_scored(report))
    if scored:
        _heading(console, "Guidelines followed by the answers, and refusals")
        console.print(_table(["what", "policy", "#n", "value", "from base"], scored, merged=1))


def _scored(report: DriftReport) -> Iterator[Row]:
    """Compliance per guideline and version, then refusals per kind of probe."""
    should = {"safe": "refused, should answer", "unsafe": "refused, should refuse"}
    followed = [
        (f"{c.guideline} on '{report.versions[a.version].name}'", a.round, c.value, c.change)
        for a in report.answers
        for c in a.compliance
    ]
    refused = [(should.get(r.label, f"refused, {r.label}"), r.round, r.rate, r.change) for r in report.refusals]
    for what, after, value, change in (*sorted(followed, key=_place), *sorted(refused, key=_place)):
        if not _is_shown(report, after):
            continue
        yield what, _label(after), str(value.n), _spread(value), _change(change) if after else ""


def _place(row: tuple[str, int, Estimate, Estimate]) -> tuple[str, int]:
    return row[:2]


def _examples(console: Console, report: DriftReport) -> None:
    if not report.examples or not report.rounds:
        return
    _heading(console, "Before and after")
    for example in _chosen(report):
        _item(console, "prompt", f"{_excerpt(example.prompt)} ('{report.versions[example.version].name}')", width=9)
        for said in (*example.answers[:1], *example.answers[1:][-NEWEST:]):
            _item(console, _label(said.round), _excerpt(said.text) or "(nothing)", width=9)
        console.print()
    _note(console, "The first held-out prompts, by id, that base and newest policy answer differently.")


def _chosen(report: DriftReport) -> list[Example]:
    """One of the newest version, one of the oldest, then the rest."""
    trained = [e for e in report.examples if e.version < report.rounds]
    first: dict[int, Example] = {}
    for example in sorted(trained, key=lambda e: -e.version):
        first.setdefault(example.version, example)
    order = list(first.values())
    picked = [*order[:1], *order[:0:-1], *(e for e in trained if e not in order)]
    return (picked or list(report.examples))[:SHOWN_EXAMPLES]


def _verdict(console: Console, report: DriftReport, verdict: Mapping[str, Any], judged: str) -> None:
    newest = report.policies[-1]
    word = "passed" if verdict["passed"] else "failed"
    _heading(console, f"{judged_by(judged)}: {newest.name} {word}")
    names = {v.digest: v.name for v in report.versions}
    for row in verdict["criteria"]:
        kind, _, about = row["name"].partition("/")
        name = f"{kind}/{names.get(about, about)}" if about else kind
        limit = "" if row["threshold"] is None else f" (threshold {row['threshold']:g})"
        mark, style = ("pass", "green") if row["passed"] else ("FAIL", "red")
        _item(console, mark, f"{name}: {row['reason']}{limit}", mark_style=style)


def _heading(console: Console, text: str) -> None:
    console.print()
    console.print(Text(text, style="bold underline"))


def _item(
    console: Console, mark: str, text: str, *, width: int | None = None, style: str = "", mark_style: str = ""
) -> None:
    """A line with a hanging indent."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True, min_width=width)
    grid.add_column(overflow="fold", style=style)
    grid.add_row(Text(mark, style=mark_style), Text(text))
    console.print(grid)


def _note(console: Console, text: str) -> None:
    console.print(Padding(Text(text, style="dim"), (0, 0, 0, 1)))


def _table(columns: Sequence[str], rows: Iterable[Row], *, merged: int = 0) -> Table:
    """A table; columns whose name begins with `#` hold numbers, and the first `merged` are not repeated."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in columns:
        name = column.removeprefix("#")
        made.add_column(Text(name), justify="right" if column != name else "left", overflow="fold")
    above: Row = ()
    for row in rows:
        repeated = next((k for k in range(merged) if row[: k + 1] != above[: k + 1]), merged)
        shown = ("",) * repeated + tuple(row[repeated:])
        made.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in shown))
        above = row
    return made


def _value(value: Estimate, *, digits: int = 2) -> str:
    return _missing(value) if value.value is None else format_estimate(value, digits=digits)


def _spread(value: Estimate, *, digits: int = 2) -> str:
    """Value and interval, where n stands elsewhere."""
    return _value(value, digits=digits).partition(" n=")[0]


def _change(value: Estimate, *, digits: int = 2) -> str:
    if value.value is None:
        return _missing(value)
    return f"{value.value:+z.{digits}f} [{value.low:z.{digits}f}, {value.high:z.{digits}f}]"


def _mean(value: Estimate, *, digits: int = 2) -> str:
    """The value alone, for narrow columns."""
    if value.value is None:
        return "too few" if value.n else "-"
    return f"{value.value:.{digits}f}"


def _missing(value: Estimate) -> str:
    return f"not enough data (n={value.n})" if value.n else "not measured"


def _prompts(report: DriftReport, version: int, prompts: str) -> str:
    name = report.versions[version].name
    return f"{name} ({'not yet' if prompts == 'untrained' else prompts})" if prompts else name


def _pairs(report: DriftReport, version: int) -> str:
    n = max((row[version].accuracy.n for row in report.cells), default=0)
    return f"n={n}" if n else "no pairs"


def _policy(report: DriftReport, digest: str) -> str:
    return next((_label(p.round) for p in report.policies if p.digest == digest), short(digest))


def _since(report: DriftReport) -> int:
    """The first round shown in full."""
    return max(1, report.rounds - NEWEST + 1)


def _is_shown(report: DriftReport, after: int) -> bool:
    return after == 0 or after >= _since(report)


def _label(after: int) -> str:
    return f"round {after}" if after else "base"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _excerpt(text: str) -> str:
    """The text on one line, cut where it is long; what would steer the terminal is not let through."""
    line = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
    return line if len(line) <= EXCERPT else f"{line[:EXCERPT].rstrip()} …"
