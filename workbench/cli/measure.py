"""Verbs that use a policy outside a round: `evaluate`, `generate`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from workbench.between import measure_between
from workbench.cli import app, show
from workbench.cli.bars import step_bars
from workbench.cli.options import AsJson, Set, SettingsFile, WorkspaceDir
from workbench.cli.settings import round_settings
from workbench.config import GenerateSettings, settings_from
from workbench.drift.uncertainty import Estimate, format_estimate
from workbench.errors import ConfigError
from workbench.workspace import Workspace

TITLES = {"retention": "preferences of", "samples": "answers to prompts of"}


@app.command()
def evaluate(
    policy: Annotated[str, typer.Argument(help="A name, digest, round number, base or champion.")],
    *,
    suite: Annotated[list[str] | None, typer.Option(help="A suite, instead of those of the settings.")] = None,
    version: Annotated[list[str] | None, typer.Option(help="A version, instead of all.")] = None,
    between: Annotated[str, typer.Option(help="Mixtures with its parent instead: shares, as in 0.25,0.5,0.75.")] = "",
    settings: SettingsFile = None,
    set_: Set = None,
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Measure a policy outside a round; what is measured already is only shown."""
    if between:
        _mixtures(Workspace(workspace), policy, between, as_json=as_json)
        return
    chosen = round_settings(settings, assignments=set_ or [])
    if suite:
        measured = chosen.evaluation.model_copy(update={"suites": tuple(suite)})
        chosen = chosen.model_copy(update={"evaluation": measured})
    ws = Workspace(workspace)
    with step_bars() as watch:
        found = ws.evaluate(policy, chosen, versions=version or (), watch=watch)
    show.result({"policy": ws.registry.resolve(policy).digest, "suites": found}, as_json=as_json,
                render=lambda out: _render(out, found, ws))  # fmt: skip


def _mixtures(ws: Workspace, policy: str, between: str, *, as_json: bool) -> None:
    """Measured as the policy's round was, whose settings count."""
    try:
        shares = [float(share) for share in between.split(",")]
    except ValueError:
        raise ConfigError(f"--between {between}: expected shares of the policy, such as 0.25,0.5,0.75") from None
    with step_bars() as watch:
        found = measure_between(ws, policy, shares, watch=watch)

    def render(out: Console) -> None:
        for share, numbers in found.items():
            out.print(f"{share:.0%} of the way to {policy}", markup=False)
            _render(out, numbers, ws)

    show.result({"policy": ws.registry.resolve(policy).digest, "between": found}, as_json=as_json, render=render)


def _render(out: Console, found: dict[str, dict[str, Estimate]], ws: Workspace) -> None:
    names = {e.digest: e.name for e in ws.version_entries()} | {p.digest: p.name for p in ws.registry.policies()}

    def called(name: str) -> str:
        first, _, rest = name.partition("/")
        return f"{first}/{names.get(rest, rest)}" if rest else first

    rows = [
        (called(suite), "accuracy" if metric == "margin" else called(metric), format_estimate(value, digits=3))
        for suite, metrics in found.items()
        for metric, value in metrics.items()
    ]
    out.print(show.table("", ("suite", "number", "value with 95 % interval"), rows))


@app.command()
def generate(
    prompts: Annotated[Path, typer.Argument(help=".txt with a prompt per line, or rows with `prompt`.")],
    *,
    policy: Annotated[
        str, typer.Option(help="Who answers: a name, digest, round number, base or champion.")
    ] = "champion",
    count: Annotated[int, typer.Option(help="Answers per prompt; two make a comparison.")] = 2,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSONL file for the answers; replaced.")] = None,
    add: Annotated[bool, typer.Option("--add/--no-add", help="Put the comparisons into the store.")] = True,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Share of the likeliest tokens to draw from.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Another seed, other answers.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; the workspace's where left out.")] = None,
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Let a policy answer a file of prompts; the answers become comparisons to judge."""
    given: dict[str, object] = {"count": count, "max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p,
                                "seed": seed, "numerics": {"threads": threads} if threads else {}}  # fmt: skip
    chosen = settings_from(given, GenerateSettings, where="command line")
    ws = Workspace(workspace)
    with step_bars() as watch:
        made = ws.generate(prompts, output, policy=policy, settings=chosen, add=add, watch=watch)
    left_out = [("left out, which leave no room for an answer", made.left_out)] if made.left_out else []
    rows = [
        ("prompts answered", made.prompts),
        *left_out,
        ("with different answers", made.comparisons),
        ("stored", made.stored),
    ]
    show.result(made, as_json=as_json, render=lambda out: out.print(show.table("generated", ("", "#count"), rows)))
