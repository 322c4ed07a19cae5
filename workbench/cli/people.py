"""The verb about accounts: `people`."""

import getpass
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from preference_data.accounts import Account, Role, State, Wanted
from workbench.cli import app, show
from workbench.cli.options import AsJson, WorkspaceDir
from workbench.workspace import Workspace

people = typer.Typer(help="List, add, change and pause the accounts of annotators.", no_args_is_help=False)
app.add_typer(people, name="people")

Name = Annotated[str, typer.Argument(help="Name the person logs in with.")]
Slices = Annotated[
    list[str] | None, typer.Option(help="NAME=VALUE, such as language=de; repeatable; replaces all before.")
]


@people.callback(invoke_without_command=True)
def list_people(context: typer.Context, *, workspace: WorkspaceDir = Path(), as_json: AsJson = False) -> None:
    """List the accounts."""
    if context.invoked_subcommand:
        return
    found = Workspace(workspace).accounts.all()
    rows = [(each.handle, each.role, each.state, _told(each.abilities), _told(each.avoid)) for each in found]
    columns = ("=name", "role", "state", "can judge", "avoids")
    empty = "no accounts: the page is for this machine alone; `workbench people add NAME --role admin` makes the first"
    show.result(
        found,
        as_json=as_json,
        render=lambda out: out.print(show.table("", columns, rows) if rows else empty),
    )


@people.command()
def add(
    name: Name,
    *,
    role: Annotated[Role, typer.Option(help="What the person may do.")] = "annotator",
    external: Annotated[
        bool, typer.Option("--external", help="No password: an identity provider lets them in (page --openid).")
    ] = False,
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Let somebody log in; asks for the password, or reads a line of standard input."""
    chosen = None if external else _password()
    made = Workspace(workspace).accounts.create(name, chosen, role, by=getpass.getuser())
    _show(made, as_json=as_json)


@people.command()
def change(
    name: Name,
    *,
    role: Annotated[Role | None, typer.Option(help="What the person may do.")] = None,
    state: Annotated[State | None, typer.Option(help="paused: shown nothing; closed: not let in.")] = None,
    can: Slices = None,
    avoid: Slices = None,
    reason: Annotated[str, typer.Option(help="Why; goes into the audit log.")] = "",
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Change what an account is."""
    wanted = Wanted(role=role, state=state, abilities=_slices(can), avoid=_slices(avoid), reason=reason)
    _show(Workspace(workspace).accounts.change(name, wanted, by=getpass.getuser()), as_json=as_json)


@people.command()
def password(name: Name, *, workspace: WorkspaceDir = Path()) -> None:
    """Replace a password; the person is logged out everywhere."""
    Workspace(workspace).accounts.set_password(name, _password(), by=getpass.getuser())


@people.command()
def erase(
    name: Annotated[str, typer.Argument(help="Name the person judged under.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; kept for ever, so it must not repeat what is erased.")],
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Forget who somebody is: what they said stays under a pseudonym, and nobody logs in as them any more."""
    pseudonym = Workspace(workspace).store.erase_person(name, reason=reason)
    show.result(
        {"pseudonym": pseudonym},
        as_json=as_json,
        render=lambda out: out.print(f"forgotten; what they said is under {pseudonym}", markup=False),
    )


def _password() -> str:
    if sys.stdin.isatty():
        return typer.prompt("password", hide_input=True, confirmation_prompt=True, err=True)
    return sys.stdin.readline().rstrip("\r\n")


def _slices(given: list[str] | None) -> dict[str, tuple[str, ...]] | None:
    if given is None:
        return None
    found: dict[str, tuple[str, ...]] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{each!r}: expected NAME=VALUE, such as language=de; NAME= alone clears it")
        found[name] = (*found.get(name, ()), *([value] if value else []))
    return {name: values for name, values in found.items() if values}


def _told(slices: Mapping[str, tuple[str, ...]]) -> str:
    return ", ".join(f"{name}={value}" for name, values in slices.items() for value in values)


def _show(account: Account, *, as_json: bool) -> None:
    show.result(
        account,
        as_json=as_json,
        render=lambda out: out.print(f"{account.handle}: {account.role}, {account.state}", markup=False),
    )
