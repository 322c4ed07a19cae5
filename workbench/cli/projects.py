"""The verb about annotation projects: `projects`."""

import getpass
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from preference_data.asking import ask_known
from preference_data.projects import Project, Projects
from preference_data.queue import Queue
from workbench.cli import app, show
from workbench.cli.options import AsJson, WorkspaceDir
from workbench.cli.settings import assign
from workbench.workspace import Workspace

projects = typer.Typer(help="List annotation projects, change how they are judged, add gold and trial items.")
app.add_typer(projects, name="projects")

Name = Annotated[str, typer.Argument(help="Name of the project.")]


@projects.callback(invoke_without_command=True)
def list_projects(context: typer.Context, *, workspace: WorkspaceDir = Path(), as_json: AsJson = False) -> None:
    """List the projects."""
    if context.invoked_subcommand:
        return
    engine = Workspace(workspace).store.engine
    found = [(each, *Queue(engine).remaining(each.name)) for each in Projects(engine).all()]
    rows = [
        (each.name, each.mode, items, left, "closed" if each.settings.closed else "") for each, items, left in found
    ]
    empty = "no projects: `workbench ask PROJECT` begins one"
    show.result(
        [{**_told(each), "items": items, "open": left} for each, items, left in found],
        as_json=as_json,
        render=lambda out: out.print(show.table("", ("=name", "mode", "#items", "#open", ""), rows) if rows else empty),
    )


@projects.command()
def change(
    name: Name,
    *,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="One setting, such as gold_share=0.1; repeatable.")
    ] = None,
    guideline: Annotated[Path | None, typer.Option(help="Markdown file people see from the next item on.")] = None,
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Change how a project is judged, from the next item on; without --set and --guideline its settings are shown."""
    engine = Workspace(workspace).store.engine
    found = Projects(engine).get(name)
    values: dict[str, Any] = {}
    for one in set_ or ():
        assign(values, one)
    text = guideline.read_text(encoding="utf-8") if guideline else None
    changed = Queue(engine).change(name, guideline=text, settings=found.settings.changed(values), by=getpass.getuser())
    _show(changed, as_json=as_json)


@projects.command()
def gold(
    name: Name,
    *,
    source: Annotated[list[str], typer.Option(help="Comparisons of this source, judged already; repeatable.")],
    trial: Annotated[bool, typer.Option("--trial", help="People are taught by them before the work begins.")] = False,
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Add items whose answer is known: the last judgement of each says it, and its rationale is what trials explain."""
    store = Workspace(workspace).store
    added = ask_known(store, name, "trial" if trial else "gold", sources=tuple(source), by=getpass.getuser())
    rows = [(each.replace("_", " "), number) for each, number in added._asdict().items()]
    show.result(added, as_json=as_json, render=lambda out: out.print(show.table(name, ("", "#comparisons"), rows)))


def _told(project: Project) -> dict[str, Any]:
    return {**project._asdict(), "at": project.at.isoformat()}


def _show(project: Project, *, as_json: bool) -> None:
    rows = list(asdict(project.settings).items())
    show.result(
        _told(project),
        as_json=as_json,
        render=lambda out: out.print(show.table(project.label, ("", "setting"), rows)),
    )
