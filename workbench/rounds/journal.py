"""The durable record of rounds: each step is done once, whatever is killed and whenever.

A step is claimed, worked on in a staging folder, published under the hash of its content, and committed in one
transaction. The claim carries a number, the fence, that grows with every claim: a process that was thought dead and
wakes up cannot commit, because the fence has moved on. Clocks only decide when to take over, never who is right. No
transaction is open while work runs.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Engine, select, update

from preference_data.database import insert_missing, reading, writing
from preference_data.errors import StoreError
from workbench.errors import JournalError
from workbench.failpoints import failpoint
from workbench.objects import Objects, disk_faults
from workbench.rounds.claims import Claim, Claims, Done, Held
from workbench.rounds.leases import Timing, heartbeat, this_process
from workbench.rounds.progress import Event, Reporter, read_events, set_stop, stop_requested, unset_stop
from workbench.schema import round_, step, timestamp
from workbench.tasks import Report

State = Literal["planned", "running", "stopped", "failed", "rejected", "promoted", "kept"]
FINAL: tuple[State, ...] = ("rejected", "promoted", "kept")
"""States a round does not leave."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step of a round.

    Attributes:
        state: `open`, `claimed` by `owner`, or `done`.
        output: digest of what it published; None until it is done.
        attempts: how often it was begun.
        alive: claimed, and the owner showed a sign of life within its lease.
    """

    name: str
    state: Literal["open", "claimed", "done"]
    owner: str
    output: str | None
    attempts: int
    alive: bool


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """A round as the journal knows it.

    Attributes:
        plan: JSON text of the plan.
        child: digest of the policy made; None until there is one.
        verdict: what the gate said, as JSON values; None until it spoke.
        started_at, ended_at: UTC, ISO 8601.
    """

    digest: str
    number: int
    plan: str
    state: State
    child: str | None
    verdict: Any
    message: str
    started_at: str
    ended_at: str | None


@dataclass(frozen=True, slots=True)
class RoundStatus:
    """A round, its steps in the order they were first claimed, and whether it was asked to stop."""

    round: RoundRecord
    steps: tuple[StepRecord, ...]
    stop_requested: bool


class Journal:
    """Rounds and steps in a ledger database.

    Args:
        engine: an opened ledger.
        objects: where outputs of steps are published.
        owner: who claims steps; this process unless said otherwise.
        timing: leases and waits.
        clock: seconds since the epoch; leases are compared across processes.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        engine: Engine,
        objects: Objects,
        owner: str | None = None,
        *,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._engine, self._objects = engine, objects
        self._timing = timing or Timing()
        self._clock, self._sleep = clock, sleep
        self._claims = Claims(engine, owner or this_process(), lease_s=self._timing.lease, clock=clock)

    def begin(self, round_digest: str, number: int, plan_json: str) -> RoundRecord:
        """Record the intent to run a round, before any work. Beginning it again changes nothing.

        Raises:
            JournalError: a round of this digest is recorded with another plan.
        """
        row = {"digest": round_digest, "number": number, "plan": plan_json, "state": "planned", "message": "",
               "started_at": timestamp()}  # fmt: skip
        with writing(self._engine) as connection:
            insert_missing(connection, round_, [row])
            found = _round(connection, round_digest)
            failpoint("journal.begin.before_commit")
        failpoint("journal.begin.after_commit")
        if (found.number, found.plan) != (number, plan_json):
            raise JournalError(
                f"round {round_digest[:12]} is recorded as number {found.number} with another plan than the one given; "
                "a round's plan never changes: plan a new round"
            )
        return found

    def step(self, round_digest: str, name: str, inputs: str, work: Callable[[Path, Report], None]) -> str:
        """Do a step, unless it is done.

        Args:
            round_digest: a round that was begun.
            name: the step's name within the round.
            inputs: digest of everything the result depends on.
            work: writes the result into the folder it is given; reports progress and raises `StopRequested` where
                that answers True.

        Returns:
            Digest of the published result; `Objects.path` says where it lies.

        Raises:
            JournalError: the inputs differ from an earlier attempt's, another process holds the step for longer than
                it is waited for, or took it over while this one worked.
            ArtifactError: the recorded result is damaged, or the disk is full.
            StopRequested: the round was asked to stop; the step is open again.
        """
        claim = self._done_or_claimed(round_digest, name, inputs)
        if isinstance(claim, Done):
            return claim.output
        try:
            with heartbeat(lambda: self._claims.renew(claim), self._timing.heartbeat) as lost:
                report = Reporter(self._engine, round_digest, every_s=self._timing.report, lost=lost.is_set)
                output = self._produce(report, work)
            self._claims.complete(claim, output)
        except BaseException:
            with suppress(StoreError):  # the lease runs out by itself
                self._claims.release(claim)
            raise
        return output

    def report(self, round_digest: str) -> Report:
        """A recorder of progress outside any step."""
        return Reporter(self._engine, round_digest, every_s=self._timing.report)

    def request_stop(self, round_digest: str, *, by: str) -> None:
        """Ask whoever runs a round to stop at the next safe point.

        Raises:
            JournalError: no such round.
        """
        self.status(round_digest)
        set_stop(self._engine, round_digest, by)

    def clear_stop(self, round_digest: str) -> None:
        """Take a request to stop back, so that the round can go on."""
        unset_stop(self._engine, round_digest)

    def finish(
        self, round_digest: str, state: State, *, child: str | None = None, verdict: Any = None, message: str = ""
    ) -> None:
        """Record how a round ended. `stopped` and `failed` rounds may be run again; the others stay as they are.

        Raises:
            JournalError: no such round, or it ended otherwise before.
        """
        values = {"state": state, "child": child, "verdict": verdict, "message": message, "ended_at": timestamp()}
        with writing(self._engine) as connection:
            found = _round(connection, round_digest)
            if found.state not in FINAL:
                connection.execute(update(round_).where(round_.c.digest == round_digest).values(values))
            failpoint("journal.finish.before_commit")
        failpoint("journal.finish.after_commit")
        if found.state in FINAL and (found.state, found.child) != (state, child):
            raise JournalError(
                f"round {round_digest[:12]} ended as {found.state} (child {found.child}); it cannot now end as {state} "
                f"(child {child}); plan a new round"
            )

    def rounds(self) -> tuple[RoundRecord, ...]:
        """All rounds, in the order they were begun."""
        with reading(self._engine) as connection:
            rows = connection.execute(select(round_).order_by(round_.c.started_at, round_.c.number)).mappings().all()
        return tuple(RoundRecord(**row) for row in rows)

    def status(self, round_digest: str) -> RoundStatus:
        """A round with its steps.

        Raises:
            JournalError: no such round.
        """
        with reading(self._engine) as connection:
            found = _round(connection, round_digest)
        steps = tuple(
            StepRecord(row.name, row.state, row.owner, row.output_digest, row.attempts, self._claims.is_alive(row))
            for row in self._claims.steps(round_digest)
        )
        return RoundStatus(found, steps, stop_requested(self._engine, round_digest))

    def events(self, round_digest: str, after: int = 0) -> list[Event]:
        """Progress of a round beyond position `after` of the log, oldest first."""
        return read_events(self._engine, round_digest, after)

    def outputs(self) -> set[str]:
        """Digests of everything steps have published: what a sweep must keep."""
        with reading(self._engine) as connection:
            found = connection.execute(select(step.c.output_digest).where(step.c.output_digest.is_not(None)))
            return {str(digest) for digest in found.scalars()}

    def _produce(self, report: Report, work: Callable[[Path, Report], None]) -> str:
        """Run the work in a staging folder and publish what it leaves there."""
        staged = self._objects.stage()
        try:
            with disk_faults(staged):
                work(staged, report)
            failpoint("journal.step.after_work")
            return self._objects.publish(staged)
        finally:
            self._objects.discard(staged)

    def _done_or_claimed(self, round_digest: str, name: str, inputs: str) -> Done | Claim:
        """The verified output of a done step, or a claim on the step, waiting for a living owner."""
        deadline = self._clock() + self._timing.patience
        while True:
            match self._claims.take(round_digest, name, inputs):
                case Done(output) as done if self._objects.path(output).exists():
                    self._objects.verify(output)
                    return done
                case Done(output):
                    self._claims.reopen(round_digest, name, output)
                case Claim() as claim:
                    return claim
                case Held(owner):
                    if self._clock() >= deadline:
                        raise JournalError(
                            f"step {name} of round {round_digest[:12]} is held by {owner}, which is alive; waited "
                            f"{self._timing.patience:g} s; let it finish, or stop it, then run again"
                        )
                    self._sleep(self._timing.poll)


def _round(connection: Connection, round_digest: str) -> RoundRecord:
    row = connection.execute(select(round_).where(round_.c.digest == round_digest)).mappings().one_or_none()
    if row is None:
        raise JournalError(f"round {round_digest[:12]}: no such round; `workbench status` lists them")
    return RoundRecord(**row)
