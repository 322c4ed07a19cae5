"""Verbs about serving: `serve`, `runner` and `up`."""

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from workbench import assembly
from workbench.cli import app
from workbench.cli.options import Workers, WorkspaceDir, where_of
from workbench.workspace import Workspace

KEY = "WORKBENCH_ENDPOINT_KEY"
ENDPOINT = "WORKBENCH_ENDPOINT"
STOP_S = 15.0

Policies = Annotated[
    list[str] | None, typer.Option("--policy", help="Policy to serve: name, digest, base, champion; repeatable.")
]


@app.command()
def serve(
    *,
    policy: Policies = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine.")] = 8000,
    count: Annotated[int, typer.Option(min=1, help="Workers that answer.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each; where left out the workspace's, on Ray one.")
    ] = None,
    workers: Workers = "auto",
    workspace: WorkspaceDir = Path(),
) -> None:
    """Serve policies on this machine over an OpenAI-compatible endpoint that streams, until it is stopped."""
    import uvicorn  # noqa: PLC0415

    from workbench.runner import endpoint  # noqa: PLC0415 - a web server is not loaded for other verbs

    ws = Workspace(workspace)
    named = {name: ws.registry.ref(ws.registry.resolve(name)) for name in policy or ["base", "champion"]}
    # One policy under two names, such as a champion that is still the base, is served once.
    served = {name: ref for ref, name in {ref: name for name, ref in reversed(named.items())}.items()}
    where = where_of(workers)
    # A worker on Ray keeps its CPUs while it waits, and rounds need theirs.
    numerics = ws.numerics.model_copy(
        update={"threads": threads or (ws.numerics.threads if assembly.is_here(where) else 1)}
    )
    with assembly.speaking(where, count=count, threads=numerics.threads) as speak:
        made = endpoint(speak, served, numerics, key=os.environ.get(KEY, ""))
        typer.echo(f"policies {', '.join(served)}: http://127.0.0.1:{port}/v1 (Ctrl+C ends it)")
        uvicorn.run(made, host="127.0.0.1", port=port, log_level="warning", access_log=False)


@app.command()
def runner(*, workers: Workers = "auto", workspace: WorkspaceDir = Path()) -> None:
    """Do what people ask for on the page: rounds, promotions, thresholds; until it is stopped."""
    from workbench.acting import act_on_requests  # noqa: PLC0415
    from workbench.views.asked import sole_runner  # noqa: PLC0415

    ws = Workspace(workspace)
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: (asked.set(), _stop_rounds(ws)))
    with sole_runner(ws.root):
        typer.echo(f"acting on requests in {ws.root} (Ctrl+C ends it; a round goes on when a runner is started again)")
        act_on_requests(ws, where=where_of(workers), tell=typer.echo, until=asked.is_set)


def _stop_rounds(ws: Workspace) -> None:
    """Have a round that runs end at its next safe point; in a thread, for the database may be held by what was interrupted."""

    def ask() -> None:
        for record in ws.journal.rounds():
            if record.state in {"planned", "running"}:
                ws.journal.request_stop(record.digest, by="runner")

    threading.Thread(target=ask, daemon=True).start()


@app.command()
def up(
    *,
    policy: Policies = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the page; the endpoint takes the next.")] = 7861,
    workers: Workers = "auto",
    workspace: WorkspaceDir = Path(),
) -> None:
    """Start page, runner and endpoint on this machine; Ctrl+C, or the end of one, stops all."""
    environment = {**os.environ, ENDPOINT: f"http://127.0.0.1:{port + 1}/v1", KEY: secrets.token_urlsafe(32)}
    common = ["--workspace", str(workspace)]
    serving = ["serve", "--port", str(port + 1), "--workers", workers]
    serving += [word for each in policy or () for word in ("--policy", each)]
    # An event, not KeyboardInterrupt: Python drops an exception that a signal raises inside a destructor.
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    running: list[subprocess.Popen[bytes]] = []
    try:
        for words in (serving, ["runner", "--workers", workers], ["page", "--port", str(port)]):
            command = [sys.executable, "-m", "workbench", *words, *common]
            running.append(subprocess.Popen(command, env=environment, start_new_session=True))
        while all(process.poll() is None for process in running) and not asked.wait(0.2):
            pass
        if asked.is_set():
            typer.echo("stopping", err=True)
    finally:
        failed = [process.returncode for process in running if process.poll()]
        _stop(running)
    raise typer.Exit(1 if failed else 0)


def _stop(running: list[subprocess.Popen[bytes]]) -> None:
    """Ask all to end, then end those that do not."""
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    end = time.monotonic() + STOP_S
    for process in running:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
