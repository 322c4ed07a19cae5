"""Verbs about collecting judgements from people: `ask`, `page`."""

import getpass
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from preference_data.projects import Mode, ProjectSettings
from workbench.cli import app, show
from workbench.cli.options import AsJson, WorkspaceDir
from workbench.workspace import Workspace
from workbench.worth import Strategy

DATABASE = "WORKBENCH_DATABASE"


@app.command()
def ask(
    project: Annotated[str, typer.Argument(help="Name of the project; begun if there is none.")],
    *,
    mode: Annotated[Mode, typer.Option(help="How a new project is judged.")] = "pairwise",
    guideline: Annotated[Path | None, typer.Option(help="Markdown file people see, of a new project.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Comparisons of this source only; repeatable.")] = None,
    count: Annotated[int, typer.Option(min=0, help="How many to draw; 0 for all.")] = 0,
    strategy: Annotated[
        Strategy, typer.Option(help="What is worth asking: where the policy is unsure, its line differs, or forgot.")
    ] = "random",
    policy: Annotated[str, typer.Option(help="Whose line it is; a name, digest or round number.")] = "champion",
    version: Annotated[str, typer.Option(help="What it forgot of this version only.")] = "",
    within: Annotated[str, typer.Option(help="What it forgot of this slice only, such as language=de.")] = "",
    seed: Annotated[int, typer.Option(help="Which ones are drawn.")] = 0,
    overlap: Annotated[int, typer.Option(min=1, help="People who judge each item of a new project.")] = 1,
    needs: Annotated[
        list[str] | None, typer.Option(help="Slice, such as language, people must know; repeatable.")
    ] = None,
    dimension: Annotated[list[str] | None, typer.Option(help="What a rating rates; repeatable.")] = None,
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Put comparisons on the annotation page."""
    text = guideline.read_text(encoding="utf-8") if guideline else ""
    asked = Workspace(workspace).ask(
        project,
        mode,
        guideline=text,
        settings=ProjectSettings(overlap=overlap, dimensions=tuple(dimension or ())),
        by=getpass.getuser(),
        sources=tuple(source or ()),
        needs=tuple(needs or ()),
        strategy=strategy,
        policy=policy,
        version=version,
        within=within,
        count=count,
        seed=seed,
    )
    rows = [(name.replace("_", " "), number) for name, number in asked._asdict().items()]
    show.result(
        asked,
        as_json=as_json,
        render=lambda out: out.print(
            show.table(project, ("", "#comparisons"), rows), "judge them: `workbench page`", sep="\n", markup=False
        ),
    )


@app.command()
def page(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on; others than this machine's own need accounts.")]
    = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 7861,
    person: Annotated[str, typer.Option("--as", help="Who judges where there are no accounts; your login name.")] = "",
    name: Annotated[list[str] | None, typer.Option(help="Name, with port, browsers use; repeatable.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM file; serves HTTPS itself.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file with the certificate's private key.")] = None,
    proxied: Annotated[bool, typer.Option("--proxied", help="A proxy in front serves HTTPS under --name.")] = False,
    openid: Annotated[str, typer.Option(help="Address of an identity provider (OpenID Connect) people may log in by; the "
                                        "page's secret there: environment variable WORKBENCH_OPENID_SECRET.")] = "",
    openid_client: Annotated[str, typer.Option(help="The page's identifier at the provider.")] = "",
    openid_claim: Annotated[str, typer.Option(help="What the provider tells that names an account.")] = "email",
    browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    workspace: WorkspaceDir = Path(),
) -> None:  # fmt: skip
    """Serve the annotation page until it is stopped."""
    url = Workspace(workspace).store.engine.url.render_as_string(hide_password=False)
    given = {"--host": host, "--port": port, "--as": person, "--certificate": certificate, "--key": key,
             "--openid": openid, "--openid-client": openid_client, "--openid-claim": openid_claim}  # fmt: skip
    command = [sys.executable, "-m", "ui"]
    command += [str(word) for option, value in given.items() if value not in (None, "") for word in (option, value)]
    command += [word for each in name or () for word in ("--name", each)]
    command += ["--proxied"] * proxied + ["--open"] * browser
    # In this process's place, so that a stop reaches the server itself.
    os.execve(sys.executable, command, {**os.environ, DATABASE: url, "WORKBENCH_WORKSPACE": str(workspace.resolve())})
