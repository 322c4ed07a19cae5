"""Everything ever measured, per item and append-only, so that the rows behind a number can be opened."""

import math
from collections.abc import Iterable, Sequence
from sys import intern
from typing import NamedTuple

from sqlalchemy import Connection, Engine, and_, delete, func, insert, select

from preference_data.database import insert_missing, reading, writing
from workbench.errors import NumericsError
from workbench.failpoints import failpoint
from workbench.schema import measured
from workbench.schema import measurement as table
from workbench.tasks import Item


class Measured(NamedTuple):
    """What has been measured of a policy: a metric of a suite, and under which numerics."""

    suite: str
    metric: str
    numerics: str


class Ledger:
    """The measurements of a ledger database. What is recorded once is never changed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def record(self, policy: str, numerics: str, items: Iterable[Item]) -> int:
        """Add measurements of one policy in one transaction; those recorded before are passed over.

        Args:
            policy: digest of the policy.
            numerics: key of dtype, attention path and software the numbers were computed with.
            items: the measurements.

        Returns:
            How many were new.

        Raises:
            NumericsError: a value is not finite; nothing is then recorded.
        """
        rows = [{"policy": policy, "numerics": numerics, **_finite(item)._asdict()} for item in items]
        count = select(func.count()).select_from(table).where(table.c.policy == policy)
        with writing(self._engine) as connection:
            before = connection.execute(count).scalar_one()
            insert_missing(connection, table, rows)
            added = connection.execute(count).scalar_one() - before
            _count(connection, policy, numerics, {(row["suite"], row["metric"]) for row in rows})
            failpoint("ledger.record.before_commit")
        failpoint("ledger.record.after_commit")
        return added

    def items(self, policy: str, suite: str, metric: str, numerics: str, *, brief: bool = False) -> list[Item]:
        """The measurements behind one number, by item id; brief ones come without their details."""
        columns = [table.c[name] for name in Item._fields[: -1 if brief else None]]
        query = select(*columns).where(
            table.c.policy == policy, table.c.suite == suite, table.c.metric == metric, table.c.numerics == numerics
        )
        with reading(self._engine) as connection:
            rows = connection.execute(query.order_by(table.c.item)).all()
        return [Item(*row, detail={}) for row in rows] if brief else [Item(*row) for row in rows]

    def columns(self, policy: str, suite: str, metric: str, numerics: str) -> tuple[list[str], list[float], list[str]]:
        """Ids, values and groups of the measurements behind one number, by item id; the same words are kept once."""
        query = select(table.c.item, table.c.value, table.c.group).where(
            table.c.policy == policy, table.c.suite == suite, table.c.metric == metric, table.c.numerics == numerics
        )
        with reading(self._engine) as connection:
            rows = connection.execute(query.order_by(table.c.item)).all()
        return [intern(row[0]) for row in rows], [row[1] for row in rows], [intern(row[2]) for row in rows]

    def values(self, policies: Sequence[str], suite: str, metric: str, numerics: str) -> dict[str, dict[str, float]]:
        """One metric of several policies, for comparing them item by item.

        Returns:
            Per policy digest, the value of each item by item id; empty for a policy never measured.
        """
        query = select(table.c.policy, table.c.item, table.c.value).where(
            table.c.policy.in_(policies),
            table.c.suite == suite,
            table.c.metric == metric,
            table.c.numerics == numerics,
        )
        found: dict[str, dict[str, float]] = {p: {} for p in policies}
        with reading(self._engine) as connection:
            for row in connection.execute(query.order_by(table.c.item)):
                found[row.policy][row.item] = row.value
        return found

    def suites(self, policy: str) -> list[Measured]:
        """What has been measured of a policy, sorted."""
        return self.suites_of([policy])[policy]

    def suites_of(self, policies: Sequence[str]) -> dict[str, list[Measured]]:
        """What has been measured of each policy, sorted."""
        query = select(measured.c.policy, measured.c.suite, measured.c.metric, measured.c.numerics)
        found: dict[str, list[Measured]] = {policy: [] for policy in policies}
        with reading(self._engine) as connection:
            for policy, *what in connection.execute(query.where(measured.c.policy.in_(found))):
                found[policy].append(Measured(*what))
        return {policy: sorted(each) for policy, each in found.items()}

    def has(self, policy: str, suite: str, numerics: str) -> bool:
        """Whether anything of a suite has been recorded. A suite is recorded whole, in one `record`."""
        query = select(measured.c.n).where(
            measured.c.policy == policy, measured.c.suite == suite, measured.c.numerics == numerics
        )
        with reading(self._engine) as connection:
            return connection.execute(query.limit(1)).first() is not None


def _count(connection: Connection, policy: str, numerics: str, touched: set[tuple[str, str]]) -> None:
    """Count the rows of some suites' metrics anew."""
    for suite, metric in sorted(touched):
        key = {"policy": policy, "suite": suite, "metric": metric, "numerics": numerics}
        rows = select(func.count()).select_from(table).where(and_(*(table.c[k] == v for k, v in key.items())))
        connection.execute(delete(measured).where(and_(*(measured.c[k] == v for k, v in key.items()))))
        connection.execute(insert(measured).values({**key, "n": connection.execute(rows).scalar_one()}))


def _finite(item: Item) -> Item:
    if not math.isfinite(item.value):
        raise NumericsError(
            f"{item.suite}, item {item.item}, {item.metric}: got {item.value}, expected a finite number; "
            "nothing was recorded; check the policy's weights with `workbench policies --verify`"
        )
    return item
