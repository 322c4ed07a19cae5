"""The closed loop: `loop`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from workbench.cli import app, show
from workbench.cli.bars import step_bars
from workbench.cli.options import AsJson, Workers, WorkspaceDir, where_of
from workbench.config import LoopSettings, read_settings
from workbench.errors import StopRequested
from workbench.looping import Ended, Stage, run_loop
from workbench.workspace import Workspace

STOPPED = 130


@app.command()
def loop(
    settings: Annotated[Path, typer.Argument(help="TOML file: name, prompts, turns, judges, [generate], [round].")],
    *,
    workers: Workers = "auto",
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for people, or end where they are needed.")
    ] = True,
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Generate, judge, freeze, align, promote; again and again. The same command goes on with it."""
    chosen = read_settings(settings, LoopSettings)
    if not chosen.prompts.is_absolute():
        chosen = chosen.model_copy(update={"prompts": settings.parent / chosen.prompts})
    try:
        with step_bars() as watch:
            stage = Stage(lambda line: typer.echo(line, err=True), watch, wait=wait, where=where_of(workers))
            ended = run_loop(Workspace(workspace), chosen, stage)
    except StopRequested as stop:
        typer.echo(f"stopped: {stop}", err=True)
        raise typer.Exit(STOPPED) from stop
    show.result(ended, as_json=as_json, render=lambda out: _render(out, ended, chosen.name))


def _render(out: Console, ended: Ended, name: str) -> None:
    rows = [
        (t.number, t.judged, t.ties, "-" if t.agreed is None else f"{t.agreed:.2f}", t.change, t.state)
        for t in ended.turns
    ]
    out.print(show.table(name, ("#turn", "#judged", "#ties", "#agreed before", "change", "round"), rows))
    for turn in ended.turns:
        if turn.proposal:
            out.print(f"turn {turn.number}: {turn.proposal}", markup=False)
    out.print(ended.why, markup=False)
