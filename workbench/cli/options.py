"""Options that several verbs have."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from workbench.assembly import Where

WorkspaceDir = Annotated[
    Path,
    typer.Option("--workspace", "-w", envvar="WORKBENCH_WORKSPACE", help="Folder of the workspace.", file_okay=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print plain JSON; progress goes to standard error.")]
SettingsFile = Annotated[
    Path | None, typer.Option("--settings", "-s", help="TOML file of the round; `plan --write FILE` makes one.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="One setting over those of the file, such as training.epochs=2; repeatable."),
]
MethodName = Annotated[str | None, typer.Option("--method", help="How the round is held to earlier ones: `methods`.")]
Parent = Annotated[str | None, typer.Option(help="Policy to start from: a name, digest, round number or champion.")]
VersionName = Annotated[str | None, typer.Option("--version", help="Dataset version: a name, digest or latest.")]
Anchor = Annotated[
    list[str] | None,
    typer.Option(help="POLICY=WEIGHT; repeatable, weights sum to 1; replaces all anchors of the file."),
]
Workers = Annotated[
    str, typer.Option(help="auto (Ray where RAY_ADDRESS is set), here (this process) or ray.", metavar="auto|here|ray")
]


def where_of(workers: str) -> Where:
    """Where steps run.

    Raises:
        typer.BadParameter: none of the known places.
    """
    for known in get_args(Where):
        if workers == known:
            return known
    raise typer.BadParameter(f"--workers {workers}: expected one of {', '.join(get_args(Where))}")
