"""The verb `demo`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from workbench.cli import app, show
from workbench.cli.bars import step_bars
from workbench.cli.drift import report_of
from workbench.cli.options import AsJson, Workers, where_of
from workbench.cli.render import render_report
from workbench.demo import Stage, run
from workbench.models.fetch import default_directory, fetch
from workbench.rounds.run import Outcome
from workbench.views import as_json as report_as_json
from workbench.workspace import Workspace

FOLDER = Path("demo-workspace")


@app.command()
def demo(
    *,
    data: Annotated[
        list[Path] | None, typer.Option(help="A file of your own pairs; repeatable, one round for each.")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="A few prompts: see it work, not learn.")] = False,
    base: Annotated[Path | None, typer.Option(help="Model folder; SmolLM2-135M-Instruct where left out.")] = None,
    workers: Workers = "auto",
    workspace: Annotated[Path, typer.Option("--workspace", "-w", help="Folder to work in; made if needed.")] = FOLDER,
    as_json: AsJson = False,
) -> None:
    """Align a small chat model twice and report: gains, losses, drift. Run again, it goes on where it stopped."""
    console = show.err() if as_json else show.out()

    def say(sentence: str) -> None:
        console.print(sentence, markup=False)

    model = base or fetch(default_directory(), progress=say)
    with step_bars() as watch:
        ws, outcomes = run(workspace, model, Stage(say, watch), data=data or (), fast=fast, where=where_of(workers))
    show.result(_plain(ws, outcomes), as_json=as_json, render=lambda out: _render(out, ws, outcomes))


def _plain(ws: Workspace, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    last = outcomes[-1]
    return {
        "workspace": ws.root,
        "rounds": [{"round": o.round, "state": o.state, "child": o.child.digest} for o in outcomes],
        "report": report_as_json(report_of(ws, last.child.digest)),
        "verdict": last.verdict.as_json(),
    }


def _render(out: Console, ws: Workspace, outcomes: Sequence[Outcome]) -> None:
    last = outcomes[-1]
    render_report(out, report_of(ws, last.child.digest), last.verdict)
    out.print(f"everything is in {ws.root}; look further: workbench drift -w {ws.root}", markup=False, soft_wrap=True)
