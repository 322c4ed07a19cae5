"""Claims on steps: the transactions that decide who works on a step and whose result counts."""

from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Engine, Row, func, insert, select, update

from preference_data.database import reading, writing
from workbench.errors import JournalError, StopRequested
from workbench.failpoints import failpoint
from workbench.rounds.leases import is_gone
from workbench.schema import round_, step, stop


class Claim(NamedTuple):
    """The right to commit one step. The fence says which attempt this is; it grows with every claim."""

    round: str
    name: str
    fence: int


class Done(NamedTuple):
    """A step that is done, and the digest of its output."""

    output: str


class Held(NamedTuple):
    """A step that somebody alive is working on."""

    owner: str


class Claims:
    """Claims of one owner.

    Args:
        owner: name written beside each claim.
        lease_s: how long a claim holds without being renewed.
        clock: seconds since the epoch.
    """

    def __init__(self, engine: Engine, owner: str, *, lease_s: float, clock: Callable[[], float]) -> None:
        self._engine, self._owner, self._lease_s, self._clock = engine, owner, lease_s, clock

    def take(self, round_digest: str, name: str, inputs: str) -> Claim | Done | Held:
        """Claim a step that is open, or whose owner is dead.

        Raises:
            JournalError: no such round, or the step was begun with other inputs.
            StopRequested: the round was asked to stop.
        """
        with writing(self._engine) as connection:
            row = connection.execute(select(step).where(_is(round_digest, name))).one_or_none()
            if row is not None and row.input_digest != inputs:
                raise JournalError(
                    f"step {name} of round {round_digest[:12]} was begun with inputs {row.input_digest[:12]}, now given "
                    f"{inputs[:12]}; a step's inputs never change: plan a new round, or restore what changed"
                )
            if row is not None and row.state == "done":
                return Done(row.output_digest)
            if row is not None and self.is_alive(row):
                return Held(row.owner)
            if connection.execute(select(stop.c.round).where(stop.c.round == round_digest)).first():
                raise StopRequested(f"round {round_digest[:12]} was asked to stop before step {name}; run it again")
            claim = self._claim(connection, round_digest, name, inputs=inputs, row=row)
            failpoint("journal.claim.before_commit")
        failpoint("journal.claim.after_commit")
        return claim

    def renew(self, claim: Claim) -> bool:
        """Extend the lease; False once the step belongs to somebody else."""
        with writing(self._engine) as connection:
            lease = update(step).where(_held_by(claim)).values(lease_until=self._clock() + self._lease_s)
            return connection.execute(lease).rowcount == 1

    def complete(self, claim: Claim, output: str) -> None:
        """Record the output of a claimed step.

        Raises:
            JournalError: the step was taken over; nothing is recorded.
        """
        done = {"state": "done", "output_digest": output, "owner": self._owner, "lease_until": 0.0}
        with writing(self._engine) as connection:
            if connection.execute(update(step).where(_held_by(claim)).values(done)).rowcount != 1:
                raise JournalError(
                    f"step {claim.name} of round {claim.round[:12]}: attempt {claim.fence} was taken over while it did "
                    "not answer, so its result is refused; leave the other process to finish, or run the round again"
                )
            failpoint("journal.complete.before_commit")
        failpoint("journal.complete.after_commit")

    def release(self, claim: Claim) -> None:
        """Give an unfinished step back, if it is still ours."""
        with writing(self._engine) as connection:
            connection.execute(update(step).where(_held_by(claim)).values(state="open", owner="", lease_until=0.0))

    def reopen(self, round_digest: str, name: str, output: str) -> None:
        """Make a done step open again, because its output is gone."""
        lost = _is(round_digest, name) & (step.c.output_digest == output)
        with writing(self._engine) as connection:
            connection.execute(update(step).where(lost).values(state="open", owner="", output_digest=None))

    def steps(self, round_digest: str) -> list[Row[Any]]:
        """Rows of a round's steps, in the order they were first claimed."""
        with reading(self._engine) as connection:
            return list(connection.execute(select(step).where(step.c.round == round_digest).order_by(step.c.position)))

    def is_alive(self, row: Row[Any]) -> bool:
        """Whether a step is claimed by an owner that showed a sign of life within its lease."""
        return row.state == "claimed" and row.lease_until > self._clock() and not is_gone(row.owner)

    def _claim(
        self, connection: Connection, round_digest: str, name: str, *, inputs: str, row: Row[Any] | None
    ) -> Claim:
        running = {"state": "running", "ended_at": None, "message": ""}
        startable = round_.c.state.in_(("planned", "running", "stopped", "failed"))
        connection.execute(update(round_).where(round_.c.digest == round_digest, startable).values(running))
        mine = {"state": "claimed", "owner": self._owner, "lease_until": self._clock() + self._lease_s}
        if row is not None:
            mine |= {"fence": row.fence + 1, "attempts": row.attempts + 1}
            connection.execute(update(step).where(_is(round_digest, name)).values(mine))
            return Claim(round_digest, name, row.fence + 1)
        if connection.execute(select(round_.c.digest).where(round_.c.digest == round_digest)).first() is None:
            raise JournalError(f"round {round_digest[:12]} was never begun; call Journal.begin with its plan first")
        position = connection.execute(select(func.count()).where(step.c.round == round_digest)).scalar_one()
        first = {"round": round_digest, "name": name, "position": position, "input_digest": inputs, "fence": 1}
        connection.execute(insert(step).values(first | mine | {"attempts": 1}))
        return Claim(round_digest, name, 1)


def _is(round_digest: str, name: str) -> ColumnElement[bool]:
    return (step.c.round == round_digest) & (step.c.name == name)


def _held_by(claim: Claim) -> ColumnElement[bool]:
    return _is(claim.round, claim.name) & (step.c.fence == claim.fence) & (step.c.state == "claimed")
