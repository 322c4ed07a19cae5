"""The verb `rebase`."""

from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from workbench.cli import app, show
from workbench.cli.bars import step_bars
from workbench.cli.drift import report_of
from workbench.cli.options import AsJson, Workers, WorkspaceDir, where_of
from workbench.drift.uncertainty import format_estimate
from workbench.views import DriftReport, as_json
from workbench.workspace import Workspace


@app.command()
def rebase(
    base: Annotated[Path, typer.Argument(help="Folder of the new base: safetensors, tokenizer, chat template.")],
    *,
    policy: Annotated[str, typer.Option(help="Newest policy of the lineage that is moved.")] = "champion",
    name: Annotated[str, typer.Option(help="What to call the new base; its folder's name by default.")] = "",
    workers: Workers = "auto",
    workspace: WorkspaceDir = Path(),
    as_json_: AsJson = False,
) -> None:
    """Run a lineage's rounds once more on another base, and compare what both retain. The champion stays."""
    ws = Workspace(workspace)
    with step_bars() as watch:
        old, new = ws.rebase(base, policy=policy, name=name, where=where_of(workers), watch=watch)
    reports = {"old": report_of(ws, old[-1]), "new": report_of(ws, new[-1])}
    found = {which: as_json(report) for which, report in reports.items()}
    show.result(found, as_json=as_json_, render=lambda out: _render(out, reports))


def _render(out: Console, reports: dict[str, DriftReport]) -> None:
    old, new = reports["old"], reports["new"]
    pairs = zip(chain.from_iterable(old.cells), chain.from_iterable(new.cells), strict=True)
    rows = [
        (str(a.round), old.versions[a.version].name, format_estimate(a.accuracy), format_estimate(b.accuracy))
        for a, b in pairs
    ]
    title = f"accuracy on test pairs: {old.policies[0].name}, then {new.policies[0].name}"
    out.print(show.table(title, ("#after round", "version", "#old base", "#new base"), rows))
    averages = [
        (one.name, format_estimate(one.value, signed=True), format_estimate(two.value, signed=True))
        for one, two in zip(old.averages, new.averages, strict=True)
    ]
    out.print(show.table("over all rounds", ("number", "#old base", "#new base"), averages))
    out.print(
        f"the champion stays; make the new lineage champion: `workbench promote {new.policies[-1].name} --reason WHY`"
    )
