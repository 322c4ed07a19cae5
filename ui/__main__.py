"""`python -m ui`: serve the page. `workbench page` starts it with the workspace's database."""

import getpass
import ipaddress
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
import uvicorn

from preference_data.accounts import Accounts
from preference_data.errors import PreferenceDataError
from preference_data.store import Store
from ui.app import make_app
from ui.arena import Arena
from workbench.places import Places
from workbench.views.inspection import Inspection

if TYPE_CHECKING:
    from ui.openid import Provider

LEDGER_CACHE_MIB = 4
"""A page reads rows that lie together, once, over several connections."""
SWITCH_S = 0.0002
HTTPS = 443
DATABASE = "WORKBENCH_DATABASE"
WORKSPACE = "WORKBENCH_WORKSPACE"
ENDPOINT, ENDPOINT_KEY = "WORKBENCH_ENDPOINT", "WORKBENCH_ENDPOINT_KEY"
OPENID_SECRET = "WORKBENCH_OPENID_SECRET"
"""Environment variables with what may be secret, as database URLs are, and with what `workbench page` passes on: a
command line is seen by everybody on the machine."""


def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on; another than this machine's own needs --certificate.")]
    = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 7861,
    person: Annotated[str, typer.Option("--as", help="Who judges where there are no accounts.")] = "",
    name: Annotated[list[str] | None, typer.Option(help="Name, with port, browsers use; repeatable.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM file; serves HTTPS itself.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file with the certificate's private key.")] = None,
    proxied: Annotated[bool, typer.Option("--proxied", help="A proxy in front serves HTTPS under --name.")] = False,
    openid: Annotated[str, typer.Option(help="Address of an identity provider (OpenID Connect) people may log in by.")]
    = "",
    openid_client: Annotated[str, typer.Option(help="This page's identifier there.")] = "",
    openid_claim: Annotated[str, typer.Option(help="What the provider tells that names an account.")] = "email",
    browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:  # fmt: skip
    """Serve the annotation page until it is stopped."""
    if not os.environ.get(DATABASE):
        raise typer.BadParameter(f"{DATABASE} is not set; expected a database URL; `workbench page` sets it")
    provider = _provider(openid, openid_client, openid_claim) if openid else None
    with Store.open(os.environ[DATABASE]) as store:
        _check(
            host, accounts=Accounts(store.engine).any(), encrypted=certificate is not None, proxied=proxied, name=name
        )
        listening = _listen(host, port)
        at = listening.getsockname()[1]
        scheme = "https" if certificate or proxied else "http"
        hosts = [*_names(name or (), at, own=certificate is not None),
                 *(f"{each}:{at}" for each in ("127.0.0.1", "localhost", "[::1]"))]  # fmt: skip
        app = make_app(
            store,
            person=person or getpass.getuser(),
            hosts=hosts,
            scheme=scheme,
            workspace=os.environ.get(WORKSPACE, ""),
            arena=_arena(store),
            provider=provider,
            inspection=_inspection(os.environ.get(WORKSPACE, "")),
        )
        threading.Thread(target=app.state.prepare, daemon=True).start()
        url = f"{scheme}://{hosts[0]}/"
        print(f"annotation page: {url} (Ctrl+C ends it)", flush=True)  # noqa: T201 - for whoever started it
        if browser:
            webbrowser.open(url)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            timeout_graceful_shutdown=5,
            timeout_keep_alive=75,  # longer than people think, or a connection closes under the next judgement
        )
        uvicorn.Server(config).run(sockets=[listening])


def _check(host: str, *, accounts: bool, encrypted: bool, proxied: bool, name: list[str] | None) -> None:
    """Refuse to serve other machines without accounts, or passwords without encryption."""
    if (proxied or encrypted) and not name:
        raise typer.BadParameter("--name is missing; expected the name browsers use, such as annotate.example.org")
    if (proxied or not _is_loopback(host)) and not accounts:
        raise typer.BadParameter("there are no accounts, so this page is for this machine alone; make one with `workbench "
                                 "people add NAME --role admin`, or use an SSH tunnel: ssh -L 7861:127.0.0.1:7861 HERE")  # fmt: skip
    if not _is_loopback(host) and not encrypted:
        raise typer.BadParameter(f"--host {host}: passwords would cross the network in the clear; give --certificate and "
                                 "--key, or let a proxy with HTTPS reach 127.0.0.1 and give --proxied --name NAME")  # fmt: skip


def _names(given: Sequence[str], port: int, *, own: bool) -> list[str]:
    """Names browsers use, the one to open first; served by this process itself they go with its port.

    >>> _names(["annotate.example.org"], 7861, own=True)
    ['annotate.example.org:7861', 'annotate.example.org']
    """
    bare = [each for each in given if ":" not in each] if own and port != HTTPS else []
    return [*(f"{each}:{port}" for each in bare), *given]


def _provider(issuer: str, client: str, claim: str) -> "Provider":
    from ui.openid import Provider  # noqa: PLC0415 - cryptography is not loaded where nobody asks for it

    address = urlsplit(issuer)
    if address.scheme != "https" and not _is_loopback(address.hostname or ""):
        raise typer.BadParameter(f"--openid {issuer}: expected an address with https://")
    if not client:
        raise typer.BadParameter("--openid-client is missing; expected the identifier the provider gave this page; its "
                                 f"secret goes into the environment variable {OPENID_SECRET}")  # fmt: skip
    return Provider(issuer=issuer, client=client, secret=os.environ.get(OPENID_SECRET, ""), claim=claim)


def _arena(store: Store) -> Arena | None:
    endpoint = os.environ.get(ENDPOINT, "")
    return Arena(store, endpoint, os.environ.get(ENDPOINT_KEY, "")) if endpoint else None


def _inspection(workspace: str) -> Inspection | None:
    return Inspection(Places(Path(workspace), cache_mib=LEDGER_CACHE_MIB)) if workspace else None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise typer.BadParameter(f"--port {port}: {error.strerror}; another page may run there; give another port, "
                                 "or 0 for a free one") from error  # fmt: skip
    # Connections inherit it. Without, a short answer waits some 40 ms for the browser to confirm its header.
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


def main() -> None:
    """Run, and say in one line what was refused."""
    # Whoever writes gives up the interpreter at every statement, and others would keep it for 5 ms each time.
    sys.setswitchinterval(SWITCH_S)
    try:
        typer.run(serve)
    except PreferenceDataError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
