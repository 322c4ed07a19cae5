"""Verbs that set up: `init`, `model fetch`."""

from pathlib import Path
from typing import Annotated

import typer

from workbench import assembly
from workbench.cli import app, show
from workbench.cli.options import AsJson
from workbench.errors import ModelError
from workbench.models.fetch import MODEL_NAME, default_directory, fetch, is_fetched
from workbench.places import CONFIG
from workbench.workspace import Workspace

model = typer.Typer(help="The small chat model that comes along.", no_args_is_help=True)
app.add_typer(model, name="model")


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="Folder of the workspace; made if needed.")] = Path(),
    *,
    base: Annotated[
        str, typer.Option(help=f"Model folder, Hugging Face name in the local hub cache, or {MODEL_NAME}.")
    ] = MODEL_NAME,
    name: Annotated[str, typer.Option(help="What to call the base; its folder's name where left out.")] = "",
    measure: Annotated[
        bool,
        typer.Option(
            "--measure/--no-measure",
            help="Measure, in about three seconds, whether this machine multiplies faster in bfloat16, and have what names no "
            "numerics compute in it on all cores; or in float32 on one thread.",
        ),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Make a workspace with policy 0. Doing it again with the same base changes nothing."""
    folder = _base_folder(base)
    workspace = Workspace.init(directory, base=folder, name=name or Path(base).name, measure=measure)
    record, numerics = workspace.registry.resolve("base"), workspace.settings.numerics
    show.result(
        {
            "workspace": workspace.root,
            "base": record.digest,
            "name": record.name,
            "path": record.path,
            "numerics": numerics.model_dump(),
        },
        as_json=as_json,
        render=lambda console: console.print(
            f"workspace {workspace.root}\nbase      {record.name} ({show.short(record.digest)}) in {record.path}\n"
            f"computes  in {numerics.dtype}, threads: {numerics.threads} ([numerics] in {CONFIG})\n"
            "next      workbench import FILE",
            markup=False,
        ),
    )


@model.command("fetch")
def model_fetch(
    *,
    directory: Annotated[Path | None, typer.Option("--to", help="Folder to put it into.")] = None,
    as_json: AsJson = False,
) -> None:
    """Get SmolLM2-135M-Instruct: 93 MB to download, 540 MB on disk, once."""
    console = show.err()
    folder = fetch(directory or default_directory(), progress=lambda text: console.print(text, markup=False))
    show.result({"model": folder}, as_json=as_json, render=lambda out: out.print(str(folder), markup=False))


def _base_folder(base: str) -> Path:
    """The folder a base's name stands for."""
    if Path(base).is_dir():
        return Path(base)
    if base == MODEL_NAME:
        if is_fetched(default_directory()):
            return default_directory()
        raise ModelError(f"{MODEL_NAME} is not on this machine; `workbench model fetch` gets it, then run init again")
    return assembly.cached_model(base)
