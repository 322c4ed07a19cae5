"""The verb about reward models: `rewards`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from workbench.cli import app, show
from workbench.cli.bars import step_bars
from workbench.cli.options import AsJson, Workers, WorkspaceDir, where_of
from workbench.cli.settings import assign
from workbench.config import RewardModelSettings, read_settings, read_values, settings_from
from workbench.drift.uncertainty import format_estimate
from workbench.reward_list import Measured, RewardModels, RewardRecord, measured
from workbench.reward_models import average_reward_models, measure, train_reward_model
from workbench.workspace import Workspace

rewards = typer.Typer(help="Train, average and measure reward models.", no_args_is_help=False)
app.add_typer(rewards, name="rewards")

Name = Annotated[str, typer.Argument(help="What to call it.")]
FEWEST_SHOWN = 10
"""Items a slice needs to be shown."""


@rewards.callback(invoke_without_command=True)
def list_rewards(context: typer.Context, *, workspace: WorkspaceDir = Path(), as_json: AsJson = False) -> None:
    """What each reward model knows of each version: its drift, read along a row."""
    if context.invoked_subcommand:
        return
    ws = Workspace(workspace)
    found = [(record, measured(ws, record)) for record in RewardModels(ws).entries()]
    rows = [{**record._asdict(), "measured": numbers} for record, numbers in found]
    show.result(rows, as_json=as_json, render=lambda out: _matrix(out, found, ws))


@rewards.command()
def train(
    name: Name,
    *,
    version: Annotated[str | None, typer.Option(help="Dataset version: a name, digest or latest.")] = None,
    settings: Annotated[Path | None, typer.Option("--settings", "-s", help="TOML file of settings.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Such as margin=1 or training.epochs=2; repeatable.")
    ] = None,
    workers: Workers = "auto",
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Train one on a version's pairs and measure it on the test pairs of all versions. The same command goes on with it."""
    if settings:
        read_settings(settings, RewardModelSettings)  # an error in the file is told as the file's
    values: dict[str, Any] = read_values(settings) if settings else {}
    for one in set_ or ():
        assign(values, one)
    if version:
        values["version"] = version
    chosen = settings_from(values, RewardModelSettings, where="command line")
    ws = Workspace(workspace)
    with step_bars() as watch:
        record = train_reward_model(ws, name, chosen, where=where_of(workers), watch=watch)
    _told(record, ws, as_json=as_json)


@rewards.command()
def average(
    name: Name,
    *,
    of: Annotated[list[str], typer.Option(help="A reward model; repeat it, two at least.")],
    workers: Workers = "auto",
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Make the one whose weights are the mean of others' (WARM), which errs less where they err apart."""
    ws = Workspace(workspace)
    with step_bars() as watch:
        record = average_reward_models(ws, name, of, where=where_of(workers), watch=watch)
    _told(record, ws, as_json=as_json)


@rewards.command("measure")
def measure_all(*, workers: Workers = "auto", workspace: WorkspaceDir = Path(), as_json: AsJson = False) -> None:
    """Measure all of them on versions that came after them; what is measured already is only shown."""
    ws = Workspace(workspace)
    found: list[tuple[RewardRecord, dict[str, Measured]]] = []
    with step_bars() as watch:
        for record in RewardModels(ws).entries():
            measure(ws, record, where=where_of(workers), watch=watch)
            found.append((record, measured(ws, record)))
    rows = [{**record._asdict(), "measured": numbers} for record, numbers in found]
    show.result(rows, as_json=as_json, render=lambda out: _matrix(out, found, ws))


@rewards.command("show")
def show_one(
    name: Annotated[str, typer.Argument(help="A name, digest or latest.")],
    *,
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Accuracy and calibration by version and slice."""
    ws = Workspace(workspace)
    _told(RewardModels(ws).find(name), ws, as_json=as_json)


def _matrix(out: Console, found: list[tuple[RewardRecord, dict[str, Measured]]], ws: Workspace) -> None:
    if not found:
        out.print("no reward models; `workbench rewards train NAME` trains one on the latest version")
        return
    versions = {e.digest: e.name for e in ws.version_entries()}
    rows = [
        (record.name, versions.get(record.version, f"average of {len(record.members)}"),
         *(format_estimate(numbers[v].accuracy) if v in numbers else "-" for v in versions))
        for record, numbers in found
    ]  # fmt: skip
    out.print(
        show.table("accuracy on the test pairs of every version", ("=model", "trained on", *versions.values()), rows)
    )


def _told(record: RewardRecord, ws: Workspace, *, as_json: bool) -> None:
    numbers = measured(ws, record)
    show.result(
        {**record._asdict(), "measured": numbers}, as_json=as_json, render=lambda out: _render(out, record, numbers, ws)
    )


def _render(out: Console, record: RewardRecord, numbers: dict[str, Measured], ws: Workspace) -> None:
    names = {e.digest: e.name for e in ws.version_entries()}
    rows: list[tuple[str, str, str, str]] = []
    for version, one in numbers.items():
        rows.append(
            (names[version], "all", format_estimate(one.accuracy), format_estimate(one.overconfident, signed=True))
        )
        rows += [
            ("", each, format_estimate(right), format_estimate(sure, signed=True))
            for each, (right, sure) in one.slices.items()
            if FEWEST_SHOWN <= right.n < one.accuracy.n
        ]
    out.print(
        show.table(
            f"{record.name} ({show.short(record.digest)})", ("=version", "items", "accuracy", "surer than right"), rows
        )
    )
