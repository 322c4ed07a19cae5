"""The verbs `gc` and `doctor`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from workbench.cli import app, show
from workbench.cli.options import AsJson, WorkspaceDir
from workbench.doctor import Finding, examine
from workbench.workspace import Workspace

HOUR_S = 3600.0


@app.command()
def gc(
    *,
    older_than: Annotated[float, typer.Option(min=0, help="Hours; younger folders stay.")] = 24.0,
    scores: Annotated[
        bool, typer.Option("--scores", help="Forget all cached scores; they are computed again.")
    ] = False,
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Give back disk space that nothing refers to: unreferenced objects, checkpoints of rounds that have ended."""
    freed = Workspace(workspace).gc(scores=scores, older_than_s=older_than * HOUR_S)
    show.result(
        freed,
        as_json=as_json,
        render=lambda out: out.print(f"{show.size(freed.bytes)} in {freed.folders} folders given back"),
    )


@app.command()
def doctor(*, workspace: WorkspaceDir = Path(), as_json: AsJson = False) -> None:
    """Check this machine: versions, database, disk, model, Ray. Exit status 1 if something is broken."""
    findings = examine(workspace)
    show.result({"ok": all(f.level != "broken" for f in findings), "findings": findings}, as_json=as_json,
                render=lambda out: _render(out, findings))  # fmt: skip
    if any(f.level == "broken" for f in findings):
        raise typer.Exit(1)


def _render(out: Console, findings: list[Finding]) -> None:
    rows = [(f.level, f.name, f.found, f.advice) for f in findings]
    out.print(show.table("", ("", "what", "found", "what to do"), rows))
