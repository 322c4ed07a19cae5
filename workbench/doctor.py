"""Is this machine fit for rounds? Looks, and changes nothing; loads no model."""

import os
import re
import shutil
import socket
import sqlite3
import stat
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal, NamedTuple

from preference_data.database import wal_is_safe
from preference_data.errors import PreferenceDataError
from workbench import assembly
from workbench.config import MachineSettings
from workbench.errors import WorkbenchError
from workbench.models.fetch import MODEL_NAME, default_directory, is_fetched
from workbench.places import CONFIG, Places

PROJECT = "continual-alignment-workbench"
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
TESTED_PYTHON = (3, 11)
GIB = 1 << 30
LITTLE_DISK, TOO_LITTLE_DISK = 5 * GIB, GIB
RAY_PORTS = (6379, 8265, 10001)
"""Where a Ray head listens by default: its control store, its jobs and dashboard, its clients."""
CONNECT_S = 0.5
OTHERS_MAY_READ = stat.S_IRGRP | stat.S_IROTH
SILENCING = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
"""What the workbench sets where nobody else did."""


class Finding(NamedTuple):
    """One thing looked at; `advice` is empty where nothing needs to be done."""

    name: str
    level: Literal["ok", "warning", "broken"]
    found: str
    advice: str = ""


def examine(workspace: Path) -> list[Finding]:
    """All findings.

    Args:
        workspace: folder of a workspace; need not be one.
    """
    fastest = assembly.fastest_here()
    return [
        python(sys.version_info[:3]),
        *packages(_installed(), _pinned(CONSTRAINTS)),
        sqlite(sqlite3.sqlite_version_info[:3]),
        disk(shutil.disk_usage(workspace if workspace.exists() else Path()).free),
        processor(fastest),
        model(default_directory()),
        *contents(workspace, fastest),
        *telemetry(os.environ),
        *ray(os.environ, Path.home()),
    ]


def python(running: tuple[int, ...]) -> Finding:
    """The interpreter."""
    found = ".".join(map(str, running))
    if running[:2] == TESTED_PYTHON:
        return Finding("Python", "ok", found)
    return Finding("Python", "broken", found, "use Python 3.11, the one everything is tested with")


def packages(installed: Mapping[str, str | None], pinned: Mapping[str, str]) -> Iterator[Finding]:
    """What the project needs, against the versions it was tested with.

    Args:
        installed: version by package name; None where it is missing.
        pinned: tested version by package name; empty where nobody says.
    """
    missing = sorted(name for name, found in installed.items() if found is None)
    if missing:
        yield Finding("packages", "broken", f"missing: {', '.join(missing)}", "run `make setup`")
    other = [f"{n} {v} (tested: {pinned[n]})" for n, v in installed.items() if v and pinned.get(n, v) != v]
    if other:
        yield Finding("packages", "warning", "; ".join(other), "run `make setup` for the tested versions")
    if not missing and not other:
        tested = "as tested" if pinned else "present; no list of tested versions here"
        yield Finding("packages", "ok", f"{len(installed)} {tested}")


def sqlite(running: tuple[int, int, int]) -> Finding:
    """The SQLite library Python was built with."""
    found = ".".join(map(str, running))
    if wal_is_safe(running):
        return Finding("SQLite", "ok", f"{found}, write-ahead log in use")
    return Finding(
        "SQLite", "warning", f"{found}: its write-ahead log can corrupt a file that two processes write",
        "nothing has to be done: the slower rollback journal is used; 3.51.3 and later have the repair",
    )  # fmt: skip


def disk(free: int) -> Finding:
    """Free bytes where the workspace is."""
    found = f"{free / GIB:.1f} GiB free"
    if free < TOO_LITTLE_DISK:
        return Finding("disk", "broken", found, "free some space; `workbench gc` removes what nothing refers to")
    if free < LITTLE_DISK:
        return Finding("disk", "warning", found, "a round over a larger model may need more; `workbench gc` helps")
    return Finding("disk", "ok", found)


def processor(fastest: MachineSettings) -> Finding:
    """Cores this process may use, and the precision they multiply faster in.

    Measured, because processors that list bfloat16 instructions may still be slower with them.
    """
    return Finding("processor", "ok", f"{fastest.threads} cores, faster with numerics.dtype = '{fastest.dtype}'")


def model(folder: Path) -> Finding:
    """The small chat model that comes along."""
    if is_fetched(folder):
        return Finding("model", "ok", f"{MODEL_NAME} in {folder}")
    return Finding("model", "warning", f"{MODEL_NAME} is not on this machine", "`workbench model fetch` gets it")


def contents(workspace: Path, fastest: MachineSettings) -> Iterator[Finding]:
    """The databases, bases and default numerics of a workspace, where there is one."""
    if not (workspace / CONFIG).exists():
        yield Finding("workspace", "ok", f"none in {workspace.absolute()}")
        return
    try:
        places = Places(workspace)
        judgements = places.store.counts()["judgements"]
        bases = [p for p in places.registry.policies() if p.origin == "base"]
    except (PreferenceDataError, WorkbenchError) as error:
        yield Finding("workspace", "broken", str(error), "see what the message says; restore a backup if it stays")
        return
    yield Finding("workspace", "ok", f"{judgements} judgements, {len(bases)} bases in {places.root}")
    yield numerics(places, fastest)
    for base in bases:
        if not (Path(base.path) / "config.json").is_file():
            advice = "put the folder back, or run `workbench init` again with its new place as --base"
            yield Finding("base", "broken", f"{base.name}: nothing in {base.path}", advice)


def numerics(places: Places, fastest: MachineSettings) -> Finding:
    """What is computed with where nothing else is said."""
    own = places.settings.numerics
    found = f"where a file names none: {own.dtype}, threads: {own.threads}"
    if "numerics" in places.settings.model_fields_set or (own.dtype, own.threads) == (fastest.dtype, fastest.threads):
        return Finding("numerics", "ok", found)
    advice = (f'for the fastest here, add [numerics] with dtype = "{fastest.dtype}" and threads = {fastest.threads} to '
              f"{CONFIG}; numbers of another dtype are not compared with earlier ones")  # fmt: skip
    return Finding("numerics", "ok", f"{found}, for {CONFIG} says nothing", advice)


def telemetry(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Variables that let libraries report usage."""
    loud = [
        f"{name}={environment[name]}" for name, silent in SILENCING.items() if environment.get(name, silent) != silent
    ]
    if loud:
        advice = f"unset them, or set {' '.join(f'{k}={v}' for k, v in SILENCING.items())}"
        yield Finding("telemetry", "warning", f"switched on by {', '.join(loud)}", advice)
    else:
        yield Finding("telemetry", "ok", "off")


def ray(environment: Mapping[str, str], home: Path) -> Iterator[Finding]:
    """Whether a Ray cluster can be reached, and by whoever knows no token. Whoever reaches one can run code there."""
    address = environment.get("RAY_ADDRESS", "")
    heads = [_host_and_port(address)] if address not in {"", "auto", "local"} else []
    reached = [head for head in (*heads, *(("127.0.0.1", port) for port in RAY_PORTS)) if _answers(*head)]
    for head in heads:
        if head not in reached:
            where = f"RAY_ADDRESS={address} does not answer"
            yield Finding("Ray", "broken", where, "start the cluster, or unset RAY_ADDRESS to run without one")
    token, advice = _token(environment, home), "ray get-auth-token --generate"
    if reached and not token:
        where = ", ".join(f"{host}:{port}" for host, port in reached)
        yield Finding("Ray", "broken", f"answers at {where}, and there is no token: whoever reaches it can run code",
                      f"stop it, run `{advice}`, and start it again with RAY_AUTH_MODE=token")  # fmt: skip
    elif reached:
        yield Finding("Ray", "ok", f"answers at {', '.join(f'{h}:{p}' for h, p in reached)}, token from {token}")
    elif not heads:
        yield Finding("Ray", "ok", "no cluster here; rounds run in this process, or start one for their own time")
    file = home / ".ray" / "auth_token"
    if file.is_file() and file.stat().st_mode & OTHERS_MAY_READ:
        yield Finding("Ray token", "warning", f"{file} can be read by others", f"chmod 600 {file}")


def _token(environment: Mapping[str, str], home: Path) -> str:
    """Where the token Ray would use comes from; empty where there is none, or it is switched off."""
    if environment.get("RAY_AUTH_MODE") == "disabled":
        return ""
    if environment.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    file = Path(environment.get("RAY_AUTH_TOKEN_PATH") or home / ".ray" / "auth_token")
    return str(file) if file.is_file() else ""


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    return (host, int(port)) if port.isdecimal() else (address, RAY_PORTS[0])


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=CONNECT_S):
            return True
    except OSError:
        return False


def _installed() -> dict[str, str | None]:
    """Versions of what the project requires, without build tags; None where missing."""
    names = [re.split(r"[^\w.-]", line)[0].lower() for line in requires(PROJECT) or [] if "extra ==" not in line]
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            found[name] = None
    return found


def _pinned(constraints: Path) -> dict[str, str]:
    """Tested versions; empty where the project was installed without its repository."""
    if not constraints.exists():
        return {}
    lines = constraints.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.lower(): found for name, found in pairs}
