"""The verb `status`."""

from pathlib import Path
from typing import Any

from rich.console import Console

from preference_data.version_list import VersionEntry
from workbench.cli import app, show
from workbench.cli.options import AsJson, WorkspaceDir
from workbench.workspace import Workspace


@app.command()
def status(*, workspace: WorkspaceDir = Path(), as_json: AsJson = False) -> None:
    """Show the workspace: preferences, versions, champion, rounds."""
    ws = Workspace(workspace)
    champion = ws.registry.resolve("champion")
    rounds = [ws.journal.status(r.digest) for r in ws.journal.rounds()]
    found: dict[str, Any] = {
        "workspace": ws.root,
        "preferences": ws.store.counts(),
        "versions": [_version(ws, each) for each in ws.version_entries()],
        "champion": {"name": champion.name, "digest": champion.digest},
        "rounds": [
            {
                "digest": r.round.digest,
                "number": r.round.number,
                "state": _state(r.round.state, alive=any(s.alive for s in r.steps)),
                "child": r.round.child,
                "started_at": r.round.started_at,
                "message": r.round.message,
                "steps": [{"name": s.name, "state": s.state, "attempts": s.attempts} for s in r.steps],
            }
            for r in rounds
        ],
    }
    show.result(found, as_json=as_json, render=lambda out: _render(out, found))


def _version(ws: Workspace, entry: VersionEntry) -> dict[str, Any]:
    manifest = ws.version(entry.digest).manifest
    return {**entry._asdict(), "counts": dict(manifest.counts), "singles": sum(manifest.singles.values())}


def _state(state: str, *, alive: bool) -> str:
    """A round is `planned` in the journal until it ends; what people want to know is whether somebody runs it."""
    if state != "planned":
        return state
    return "running" if alive else "interrupted"


def _render(out: Console, found: dict[str, Any]) -> None:
    out.print(f"workspace {found['workspace']}", markup=False)
    out.print(f"champion  {found['champion']['name']} ({show.short(found['champion']['digest'])})", markup=False)
    counted = found["preferences"]
    out.print(show.table("preferences", ("", "#count"), list(counted.items())))
    with_singles = any(v["singles"] for v in found["versions"])
    versions = [
        (v["name"], show.short(v["digest"]), *v["counts"].values(), *([v["singles"]] * with_singles), v["at"][:16])
        for v in found["versions"]
    ]
    counts = ("#train", "#select", "#test", *(["#single"] * with_singles))
    out.print(show.table("versions", ("name", "=digest", *counts, "=frozen at (UTC)"), versions))
    rounds = [
        (r["number"], show.short(r["digest"]), r["state"], show.short(r["child"]), _where(r["steps"]), r["message"])
        for r in found["rounds"]
    ]
    out.print(show.table("rounds", ("#round", "=digest", "state", "=child", "steps done", "message"), rounds))
    if any(r["state"] in {"interrupted", "stopped", "failed"} for r in found["rounds"]):
        out.print("a round that did not end goes on when the same `workbench round` is run again")


def _where(steps: list[dict[str, Any]]) -> str:
    return f"{sum(s['state'] == 'done' for s in steps)} of {len(steps)} begun"
