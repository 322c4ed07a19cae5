"""Verbs about policies: `policies`, `policies export`, `adopt`, `promote`, `rollback`."""

import getpass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from workbench.cli import app, show
from workbench.cli.options import AsJson, WorkspaceDir
from workbench.config import Rounded
from workbench.errors import PolicyError
from workbench.policies.registry import PolicyRecord
from workbench.rejecting import reject as rejected
from workbench.rejecting import rejections
from workbench.workspace import Workspace

policies = typer.Typer(help="List, verify and export policies.")
app.add_typer(policies, name="policies")

Reason = Annotated[str, typer.Option(help="Why; kept in the champion's history.")]
By = Annotated[str, typer.Option(help="Who decides; the user of this machine where left out.")]


@policies.callback(invoke_without_command=True)
def list_policies(
    context: typer.Context,
    *,
    verify: Annotated[bool, typer.Option("--verify", help="Read every byte and hold it to its hash.")] = False,
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """List policies with their lineage, and how the champion moved."""
    if context.invoked_subcommand:
        return
    ws = Workspace(workspace)
    champion, gone = ws.registry.resolve("champion").digest, rejections(ws)
    faults = _faults(ws) if verify else {}
    records = ws.registry.policies()
    found: dict[str, Any] = {
        "champion": champion,
        "policies": [_row(p, champion) | ({"fault": faults.get(p.digest)} if verify else {}) for p in records],
        "history": ws.registry.history(),
        "rejected": [{"policy": p, "by": e.by, "at": e.at, "reason": e.facts["reason"]} for p, e in gone.items()],
    }
    show.result(found, as_json=as_json, render=lambda out: _render(out, found, ws))
    if faults:
        raise typer.Exit(1)


def _row(policy: PolicyRecord, champion: str) -> dict[str, Any]:
    return {
        "name": policy.name,
        "digest": policy.digest,
        "kind": policy.kind,
        "origin": policy.origin,
        "parent": policy.parent,
        "version": policy.version,
        "champion": policy.digest == champion,
        "path": policy.path,
        "created_at": policy.created_at,
    }


def _faults(ws: Workspace) -> dict[str, str]:
    """What is wrong, by digest."""
    found: dict[str, str] = {}
    for policy in ws.registry.policies():
        try:
            ws.registry.verify(policy.digest)
        except PolicyError as error:
            found[policy.digest] = str(error)
    return found


def _render(out: Console, found: dict[str, Any], ws: Workspace) -> None:
    names = {p["digest"]: p["name"] for p in found["policies"]}
    versions = {e.digest: e.name for e in ws.version_entries()}
    rows = [
        ("*" if p["champion"] else "", p["name"], show.short(p["digest"]), _kind(p), names.get(p["parent"], ""),
         versions.get(p["version"], show.short(p["version"])))
        for p in found["policies"]
    ]  # fmt: skip
    columns = ("", "=name", "=digest", "kind", "=parent", "version")
    out.print(show.table("policies (* champion)", columns, rows))
    moves = [(m.at[:16], m.kind, names.get(m.new, show.short(m.new)), m.by, m.reason) for m in found["history"]]
    out.print(show.table("moves of the champion", ("=at (UTC)", "move", "=to", "by", "reason"), moves))
    for r in found["rejected"]:
        out.print(
            f"{names.get(r['policy'], r['policy'])} was rejected by {r['by']}: {r['reason']}",
            markup=False,
            soft_wrap=True,
        )
    for p in found["policies"]:
        if "fault" in p:
            out.print(f"{p['name']}: {p['fault'] or 'every file is whole'}", markup=False, soft_wrap=True)


def _kind(policy: dict[str, Any]) -> str:
    return f"{policy['kind']}, adopted" if policy["origin"] == "adopted" else policy["kind"]


@policies.command()
def export(
    policy: Annotated[str, typer.Argument(help="A name, digest, round number, base or champion.")],
    directory: Annotated[Path, typer.Argument(help="New or empty folder.")],
    *,
    merged: Annotated[bool, typer.Option("--merged", help="Fold the adapter into its base: a full model.")] = False,
    rounded: Annotated[Rounded | None, typer.Option(help="Round a full model's matrices, as `judged` does.")] = None,
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Write a policy as a Hugging Face folder that transformers and PEFT load without this project."""
    record = Workspace(workspace).export_policy(policy, directory, merged=merged, rounded=rounded)
    kind = "full" if merged or rounded else record.kind
    show.result(
        {"policy": record.digest, "directory": directory, "kind": kind},
        as_json=as_json,
        render=lambda out: out.print(f"{kind} {record.name} in {directory}", markup=False),
    )


@app.command()
def adopt(
    path: Annotated[Path, typer.Argument(help="Folder of a LoRA adapter or of full weights, as safetensors.")],
    *,
    parent: Annotated[str, typer.Option(help="The policy it was trained from.")],
    name: Annotated[str, typer.Option(help="What to call it.")],
    version: Annotated[str | None, typer.Option(help="The dataset version it was trained on, where known.")] = None,
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Register a checkpoint trained elsewhere, so that it stands in lineage, matrix and tax."""
    ws = Workspace(workspace)
    _told(ws.adopt(path, parent=parent, name=name, version=version), ws, "adopted", as_json=as_json)


@app.command()
def promote(
    policy: Annotated[str, typer.Argument(help="A name, digest or round number.")],
    *,
    reason: Reason,
    by: By = "",
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Make a policy champion by hand."""
    ws = Workspace(workspace)
    _told(ws.promote(policy, reason=reason, by=by or getpass.getuser()), ws, "champion", as_json=as_json)


@app.command()
def rollback(
    *,
    reason: Reason,
    to: Annotated[
        str | None, typer.Option(help="The policy to go back to; the last champion nobody rejected where left out.")
    ] = None,
    by: By = "",
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Make an earlier champion champion again."""
    ws = Workspace(workspace)
    _told(ws.rollback(reason=reason, by=by or getpass.getuser(), to=to), ws, "champion", as_json=as_json)


@app.command()
def reject(
    policy: Annotated[str, typer.Argument(help="A name, digest or round number.")],
    *,
    reason: Reason,
    by: By = "",
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Say that a policy is not to be used; a champion gives way to the one before it."""
    ws = Workspace(workspace)
    _told(rejected(ws, policy, reason=reason, by=by or getpass.getuser()), ws, "rejected", as_json=as_json)


def _told(policy: PolicyRecord, ws: Workspace, what: str, *, as_json: bool) -> None:
    champion = ws.registry.resolve("champion").digest
    show.result(
        _row(policy, champion),
        as_json=as_json,
        render=lambda out: out.print(f"{what}: {policy.name} ({show.short(policy.digest)})", markup=False),
    )
