"""`python -m ui`: serve the page. `workbench page` starts it with the workspace's database."""

import getpass
import ipaddress
import os
import socket
import sys
import webbrowser
from typing import Annotated

import typer
import uvicorn

from preference_data.errors import PreferenceDataError
from preference_data.store import Store
from ui.app import make_app

DATABASE = "WORKBENCH_DATABASE"
"""Environment variable with the database URL: a command line is seen by everybody on the machine."""


def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on; this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 7861,
    person: Annotated[str, typer.Option("--as", help="Who judges; the name of your account by default.")] = "",
    browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Serve the annotation page until it is stopped."""
    if not _is_loopback(host):
        raise typer.BadParameter(
            f"--host {host}: nobody logs in on this page, so it is served to this machine alone; expected 127.0.0.1 or "
            "::1; reach it from elsewhere through an SSH tunnel: ssh -L 7861:127.0.0.1:7861 THIS-MACHINE"
        )
    if not os.environ.get(DATABASE):
        raise typer.BadParameter(f"{DATABASE} is not set; expected a database URL; `workbench page` sets it")
    listening = _listen(host, port)
    at = listening.getsockname()[1]
    hosts = [f"{name}:{at}" for name in ("127.0.0.1", "localhost", "[::1]")]
    with Store.open(os.environ[DATABASE]) as store:
        app = make_app(store, person=person or getpass.getuser(), hosts=hosts)
        url = f"http://{hosts[2] if ':' in host else hosts[0]}/"
        print(f"annotation page: {url} (Ctrl+C ends it)", flush=True)  # noqa: T201 - for whoever started it
        if browser:
            webbrowser.open(url)
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        uvicorn.Server(config).run(sockets=[listening])


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise typer.BadParameter(f"--port {port}: {error.strerror}; another page may run there; give another port, "
                                 "or 0 for a free one") from error  # fmt: skip


def main() -> None:
    """Run, and say in one line what was refused."""
    try:
        typer.run(serve)
    except PreferenceDataError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
