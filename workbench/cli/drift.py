"""The verb `drift`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli import app, show
from workbench.cli.options import AsJson, WorkspaceDir
from workbench.cli.render import render_report
from workbench.drift.ledger import Measured
from workbench.errors import ConfigError
from workbench.reports.document import html_report, markdown_report
from workbench.rounds.journal import RoundRecord
from workbench.rounds.plan import condition_of
from workbench.views import DriftReport, NamedVersion, as_json, change_lines, drift_report, next_steps
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
    aside = _elsewhere(report, list(rounds.values()), ws)
    found = {"report": as_json(report), "verdict": verdict, "changes": change_lines(report),
             "next": next_steps(report, verdict, elsewhere=aside)}  # fmt: skip
    show.result(found, as_json=as_json_, render=lambda out: render_report(out, report, verdict, aside=aside))


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
        return (f"round {last.number} has no child yet ({last.state}): `workbench status` says where it stands",)
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
