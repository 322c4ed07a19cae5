"""The verb `drift`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from preference_data.pair_table import row_of
from workbench.cli import app, show
from workbench.cli.bars import step_bars
from workbench.cli.options import AsJson, Workers, WorkspaceDir, where_of
from workbench.cli.render import render_report
from workbench.drift.ledger import Measured
from workbench.errors import ConfigError
from workbench.explaining import explain as explain_version
from workbench.reports.document import html_report, markdown_report
from workbench.rounds.journal import RoundRecord
from workbench.rounds.plan import condition_of
from workbench.views import DriftReport, NamedVersion, as_json, change_lines, drift_report, next_steps
from workbench.views.sentences import unfinished
from workbench.workspace import Workspace


@app.command()
def drift(
    policy: Annotated[str, typer.Argument(help="Newest policy to show: a name, digest or round number.")] = "champion",
    *,
    rows: Annotated[
        str, typer.Option(metavar="SUITE/METRIC", help="Print the rows behind a number of the policy, as JSONL.")
    ] = "",
    workspace: WorkspaceDir = Path(),
    as_json_: AsJson = False,
) -> None:
    """Show what the rounds that led to a policy gained, lost and moved."""
    ws = Workspace(workspace)
    rounds = {r.digest: r for r in ws.journal.rounds()}
    newest = rounds.get(ws.registry.resolve(policy).round or "")
    report = report_of(ws, policy)
    if rows:
        _print_rows(ws, report, rows)
        return
    verdict: Mapping[str, Any] | None = newest.verdict if newest else None
    judged = json.loads(newest.plan).get("judged", "child") if newest else "child"
    aside = _elsewhere(report, list(rounds.values()), ws)
    found = {"report": as_json(report), "verdict": verdict, "judged": judged, "changes": change_lines(report),
             "next": next_steps(report, verdict, elsewhere=aside)}  # fmt: skip
    show.result(
        found, as_json=as_json_, render=lambda out: render_report(out, report, verdict, judged=judged, aside=aside)
    )


@app.command()
def report(
    policy: Annotated[str, typer.Argument(help="Newest policy to tell of: a name, digest or round number.")] = "champion",
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .html opens offline, .md is text.")]
    = Path("report.html"),
    workspace: WorkspaceDir = Path(),
    as_json_: AsJson = False,
) -> None:  # fmt: skip
    """Write a policy's report as one file: gate, retention, tax, drift, with every figure inside."""
    make = {".html": html_report, ".md": markdown_report}.get(output.suffix)
    if make is None:
        raise ConfigError(f"--output {output}: expected a name that ends in .html or .md")
    output.write_text(make(Workspace(workspace), policy), encoding="utf-8")
    show.result({"written": output}, as_json=as_json_, render=lambda out: out.print(str(output), markup=False))


@app.command()
def explain(
    policy: Annotated[str, typer.Argument(help="A policy that a round made: a name, digest or round number.")],
    version: Annotated[str, typer.Argument(help="The version it forgot.")],
    *,
    within: Annotated[str, typer.Option(metavar="SLICE=VALUE", help="Pairs of this slice only.")] = "",
    count: Annotated[int, typer.Option(min=1, help="Pairs to show.")] = 10,
    workers: Workers = "auto",
    workspace: WorkspaceDir = Path(),
    as_json_: AsJson = False,
) -> None:
    """Show which training pairs of its round turned what a version had taught; the worst first."""
    with step_bars() as watch:
        found = explain_version(
            Workspace(workspace), policy, version, within=within, where=where_of(workers), watch=watch
        )
    rows = [
        (f"{100 * one.share:.1f} %", one.pair.prompt.text[-60:], one.pair.chosen[:30], one.pair.rejected[:30])
        for one in found.causes[:count]
    ]
    out = {
        "half": found.half,
        "by_slice": found.by_slice,
        "causes": [{"share": one.share, **row_of(one.pair)} for one in found.causes],
    }
    show.result(out, as_json=as_json_, render=lambda console: console.print(
        show.table("what turned it", ("#share", "prompt", "chosen", "rejected"), rows),
        f"{found.half} of {len(found.causes)} pairs did half of the harm", sep="\n"))  # fmt: skip


def report_of(ws: Workspace, policy: str) -> DriftReport:
    """The drift report of a policy's lineage, under the conditions its newest round measured."""
    rounds = {r.digest: r for r in ws.journal.rounds()}
    newest = rounds.get(ws.registry.resolve(policy).round or "")
    versions = [NamedVersion(e.name, e.digest) for e in ws.version_entries()]
    condition = round_condition(newest) if newest else None
    return drift_report(ws.registry, ws.ledger, versions, policy, condition=condition)


def round_condition(record: RoundRecord) -> str:
    """Under what conditions a recorded round measured."""
    return condition_of(json.loads(record.plan))


def _elsewhere(report: DriftReport, rounds: Sequence[RoundRecord], ws: Workspace) -> tuple[str, ...]:
    """Where the newest round is to be seen, if its child is not in this lineage."""
    last = rounds[-1] if rounds else None
    if last is None or last.child in {p.digest for p in report.policies}:
        return ()
    if last.child is None:
        return unfinished(rounds)
    return (f"the newest round was {last.state}; see why: `workbench drift {ws.registry.get(last.child).name}`",)


def _print_rows(ws: Workspace, report: DriftReport, wanted: str) -> None:
    newest = report.policies[-1]
    measured = [one for one in ws.ledger.suites(newest.digest) if one.numerics == report.condition]
    named = {_readable(report, one): one for one in measured}
    found = named.get(wanted) or next((one for one in measured if f"{one.suite}/{one.metric}" == wanted), None)
    if found is None:
        known = ", ".join(named) or f"nothing yet; `workbench evaluate {newest.name}` measures it"
        raise ConfigError(f"--rows {wanted}: not measured of {newest.name}; there are: {known}")
    for item in ws.ledger.items(newest.digest, found.suite, found.metric, found.numerics):
        row = {"policy": newest.digest, "numerics": found.numerics, **item._asdict()}
        typer.echo(json.dumps(row, ensure_ascii=False))


def _readable(report: DriftReport, one: Measured) -> str:
    """A number's name with names instead of digests, such as `retention/plain/margin` or `text/bits`."""
    names = {v.digest: v.name for v in report.versions} | {p.digest: p.name for p in report.policies}
    suite, _, about = one.suite.partition("/")
    metric, _, other = one.metric.partition("/")
    about = names.get(about, "" if suite == "text" else about)
    return "/".join(part for part in (suite, about, metric, names.get(other, other)) if part)
