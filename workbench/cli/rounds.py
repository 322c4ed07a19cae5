"""Verbs of a round: `plan`, `round`."""

import _thread
import getpass
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NamedTuple

import typer
from rich.console import Console

from workbench.cli import app, show
from workbench.cli.bars import step_bars
from workbench.cli.options import (
    Anchor,
    AsJson,
    MethodName,
    Parent,
    Set,
    SettingsFile,
    VersionName,
    Workers,
    WorkspaceDir,
    where_of,
)
from workbench.cli.settings import round_settings
from workbench.config import METHODS, RoundSettings
from workbench.config.written import as_toml
from workbench.errors import ConfigError, JournalError, StopRequested
from workbench.following import follow
from workbench.reports.story import judged_by
from workbench.rounds.estimate import Estimated
from workbench.rounds.gate import Verdict
from workbench.rounds.plan import plan_as_json
from workbench.rounds.run import Outcome
from workbench.tasks import Plan
from workbench.views.asked import runner_alive
from workbench.views.fresh import Fresh, fresh_of, said_of
from workbench.views.records import Singles
from workbench.views.singles import said_of_singles, singles_of
from workbench.workspace import PlannedRound, Workspace

STOPPED = 130
"""Exit status of a round that was asked to stop, as shells have it for Ctrl-C."""


@app.command()
def plan(
    *,
    write: Annotated[Path | None, typer.Option(help="Write the settings, with what each means, and stop.")] = None,
    settings: SettingsFile = None,
    method: MethodName = None,
    parent: Parent = None,
    version: VersionName = None,
    anchor: Anchor = None,
    set_: Set = None,
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Show what a round would do and cost, or write settings to edit."""
    chosen = round_settings(
        settings, method=method, parent=parent, version=version, anchors=anchor or [], assignments=set_ or []
    )
    if write:
        if write.exists():
            raise ConfigError(f"{write}: exists; give another name, or edit it and run `workbench plan -s {write}`")
        write.write_text(as_toml(chosen), encoding="utf-8")
        show.result({"written": write}, as_json=as_json, render=lambda out: out.print(str(write), markup=False))
        return
    _dry_run(_planned(workspace, chosen), as_json=as_json)


@app.command()
def methods(*, as_json: AsJson = False) -> None:
    """List the named combinations of settings that hold a round to earlier ones."""
    found = {name: {**method._asdict(), "settings": dict(method.settings)} for name, method in METHODS.items()}
    rows = [(name, each.summary, each.source) for name, each in METHODS.items()]
    show.result(
        found, as_json=as_json, render=lambda out: out.print(show.table("methods", ("name", "what", "source"), rows))
    )


@app.command("round")
def round_(
    *,
    settings: SettingsFile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show plan, cost and power; change nothing.")] = False,
    workers: Workers = "auto",
    method: MethodName = None,
    parent: Parent = None,
    version: VersionName = None,
    anchor: Anchor = None,
    set_: Set = None,
    workspace: WorkspaceDir = Path(),
    as_json: AsJson = False,
) -> None:
    """Run a round: score, optimise, evaluate, gate, promote. Ctrl-C stops it; the same command goes on."""
    where = where_of(workers)
    chosen = round_settings(
        settings, method=method, parent=parent, version=version, anchors=anchor or [], assignments=set_ or []
    )
    planned = _planned(workspace, chosen)
    if dry_run:
        _dry_run(planned, as_json=as_json)
        return
    try:
        with step_bars() as watch, _stopping(planned):
            if runner_alive(planned.workspace.root):
                typer.echo("a runner is alive here: it does the round, this follows", err=True)
                outcome = follow(planned, by=getpass.getuser(), watch=watch)
            else:
                outcome = planned.run(where=where, watch=watch)
    except StopRequested as stop:
        typer.echo(f"stopped: {stop}", err=True)
        raise typer.Exit(STOPPED) from stop
    record = planned.workspace.journal.status(planned.digest).round
    told = _Told(fresh_of(planned.workspace, record), singles_of(planned.workspace, record))
    show.result(
        _as_json(outcome, told), as_json=as_json, render=lambda out: _render_outcome(out, outcome, planned, told)
    )


class _Told(NamedTuple):
    """What a round says beside its gate."""

    fresh: Fresh | None
    singles: tuple[Singles, ...]


def _planned(workspace: Path, chosen: RoundSettings) -> PlannedRound:
    ws = Workspace(workspace)
    return ws.round(ws.plan(chosen))


@contextmanager
def _stopping(planned: PlannedRound) -> Iterator[None]:
    """Ctrl-C asks the round to stop at its next safe point; a second one ends it at once."""

    def ask() -> None:
        try:
            planned.workspace.journal.request_stop(planned.digest, by="keyboard")
        except JournalError:  # not begun yet: nothing to leave tidy
            _thread.interrupt_main()

    def on_signal(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        typer.echo("stopping at the next safe point; press Ctrl-C again to end at once", err=True)
        # In a thread of its own: the interrupted code may hold the database.
        threading.Thread(target=ask, daemon=True).start()

    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _dry_run(planned: PlannedRound, *, as_json: bool) -> None:
    cost = planned.estimate()
    found = {"round": planned.digest, "plan": plan_as_json(planned.plan), "estimate": {
        **show.plain(cost), "total_s": cost.total_s}}  # fmt: skip
    show.result(found, as_json=as_json, render=lambda out: _render_dry_run(out, planned, cost))


def _render_dry_run(out: Console, planned: PlannedRound, cost: Estimated) -> None:
    out.print(show.table(f"round {planned.plan.number} ({show.short(planned.digest)})", ("", ""), _policies(planned)))
    load, training, online = cost.workload, planned.plan.training, planned.plan.online
    by_themselves = planned.plan.objective.of_answers
    rows = [
        ("pairs to take prompts from" if online.on else "answers to train on" if by_themselves else "pairs to train on",
         f"{load.train_pairs}, {load.train_tokens:,} tokens, the longest {load.longest}"),
        ("pairs to test on", f"{sum(load.test_pairs.values())}, {sum(load.test_tokens.values()):,} tokens"),
        ("left out", f"{load.left_out}, whose prompt alone has {training.max_length} tokens or more"),
        *([("left out", f"{load.no_room} prompts, which leave no room for an answer of {online.max_new_tokens} tokens")]
          if load.no_room else []),
        ("optimizer steps", f"{cost.steps} ({online.prompts} new prompts x {online.samples} fresh answers per step)" if online.on else
         f"{cost.steps} ({training.epochs} x {load.train_pairs} {'answers' if by_themselves else 'pairs'}, {training.batch_size * training.accumulation} per step)"),
        ("trained parameters", f"{cost.trainable:,} ({training.method})"),
        *((f"time to {name}", _time(seconds)) for name, seconds in cost.seconds.items()),
        ("time in all", f"{_time(cost.total_s)} at {load.flops_per_s / 1e9:.0f} GFLOP/s ({planned.plan.numerics.dtype}"
         f", threads: {planned.plan.numerics.threads}); within a factor of about two"),
        ("memory at its peak", f"about {show.size(cost.memory_bytes)}"),
    ]  # fmt: skip
    out.print(show.table("what it costs", ("", ""), rows))
    names = {e.digest: e.name for e in planned.workspace.version_entries()}
    sights = [(_named(s.name, names), s.n, "none" if s.change is None else f"{s.change:.3f}") for s in cost.sights]
    out.print(show.table("smallest change found four times in five", ("number", "#n", "#change"), sights))
    out.print("taking a fifth of the items to flip between two policies; more flips hide a change better")


def _policies(planned: PlannedRound) -> list[tuple[str, str]]:
    p, registry = planned.plan, planned.workspace.registry

    def name(digest: str) -> str:
        return f"{registry.get(digest).name} ({show.short(digest)})"

    anchors = [("anchor", f"{name(a.policy.digest)}, weight {a.weight:g}") for a in p.anchors]
    return [("parent", name(p.parent.digest)), *anchors, ("version", show.short(p.version.digest)), *_learned_by(p)]


def _learned_by(plan: Plan) -> list[tuple[str, str]]:
    """What is climbed, and what weighs the distance from the anchors."""
    if not plan.online.on:
        return [("loss", f"{plan.objective.loss}, beta {plan.objective.beta:g}")]
    online = plan.online
    rewards = [("guard" if one is online.guard else "reward", one.by if one.weight == 1 else f"{one.by}, times {one.weight:g}")
               for one in (*online.rewards, *([online.guard] if online.guard else []))]  # fmt: skip
    betas = f"beta {online.beta:g}, at replayed prompts {online.beta_old:g}"
    return [("fresh answers", f"{online.objective}, {betas}"), *rewards]


def _named(name: str, versions: dict[str, str]) -> str:
    """A number's name with the version's name in place of its digest."""
    kind, _, rest = name.partition("/")
    return f"{kind}/{versions.get(rest, rest)}" if rest else kind


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else (
        f"{seconds / 3600:.1f} h")  # fmt: skip


def _as_json(outcome: Outcome, told: _Told) -> dict[str, object]:
    return {
        "round": outcome.round,
        "state": outcome.state,
        "child": outcome.child.digest,
        "name": outcome.child.name,
        "verdict": outcome.verdict.as_json(),
        "fresh": show.plain(told.fresh),
        "singles": show.plain(told.singles),
    }


def _render_outcome(out: Console, outcome: Outcome, planned: PlannedRound, told: _Told) -> None:
    names = {e.digest: e.name for e in planned.workspace.version_entries()}
    if told.fresh:
        policies = {record.digest: record.name for record in planned.workspace.registry.policies()}
        out.print(show.table("what its own answers earned", ("", ""), said_of(told.fresh, policies)))
    if told.singles:
        rows = said_of_singles(told.singles, names)
        out.print(show.table("good single answers over bad ones, held out", ("version", "AUC", "from parent"), rows))
    out.print(_gate(outcome.verdict, names, planned.plan.judged))
    out.print(f"{outcome.state}: {outcome.child.name} ({show.short(outcome.child.digest)})", markup=False)
    advice = {
        "promoted": "it is champion now; look at `workbench drift`, or go back with `workbench rollback --reason WHY`",
        "kept": "the champion was changed meanwhile; `workbench promote` makes this policy champion by hand",
        "rejected": "the champion stays; look at the failed lines above and `workbench drift`, then change the "
        f"settings, or take it anyway: `workbench promote {outcome.child.name} --reason WHY`",
    }
    out.print(advice.get(outcome.state, ""), markup=False)


def _gate(verdict: Verdict, names: dict[str, str], judged: str) -> object:
    rows = [
        (_named(name, names), "-" if measured.startswith("not enough") else measured, *rest)
        for name, measured, *rest in verdict.rows()
    ]
    return show.table(judged_by(judged).lower(), ("criterion", "measured", "#threshold", "verdict", "why"), rows)
