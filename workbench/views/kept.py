"""Numbers of policies, kept in the ledger: computed once after a measurement, read whenever somebody looks."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from sys import intern
from typing import Any

from sqlalchemy import Engine, and_, delete, insert, select

from preference_data.database import reading, writing
from preference_data.records import digest
from workbench.drift.ledger import Ledger, Measured
from workbench.drift.uncertainty import Estimate
from workbench.schema import number, numbered
from workbench.views.numbers import Kin, numbers_of
from workbench.views.reading import Reader

MADE = 4
"""Grows when numbers are computed otherwise, so that kept ones are computed anew."""
AT_ONCE = 500
"""Parameters of one statement; databases have a limit."""

Key = tuple[str, str, str]
"""Policy, name and suite of a number."""


class Numbers:
    """The numbers of a ledger database under one condition.

    Args:
        engine: an opened ledger.
        condition: how was measured.
    """

    def __init__(self, engine: Engine, condition: str) -> None:
        self._engine, self._condition = engine, condition
        self._ledger = Ledger(engine)

    def keep(self, lineage: Sequence[str], told: Callable[[int, int], None] = lambda *_: None) -> int:
        """Compute what is missing or older than its measurements.

        Args:
            lineage: digests of policies, the base first.
            told: how many policies are done, and of how many.

        Returns:
            How many policies were computed.
        """
        measured, known = self._measured(lineage), self._stamps(lineage)
        kins = [Kin(lineage[0], lineage[max(t - 1, 0)], own) for t, own in enumerate(lineage)]
        stamps = {kin.own: _stamp(kin, measured) for kin in kins}
        missing = [kin for kin in kins if measured[kin.own] and known.get(kin.own) != stamps[kin.own]]
        read = Reader(self._ledger, self._condition)
        for done, kin in enumerate(missing, start=1):
            self._write(kin.own, stamps[kin.own], read, kin)
            # What comes next needs its parent and the base once more, and nothing before.
            read.forget(set(kin) - {kin.own, kin.base})
            told(done, len(missing))
        return len(missing)

    def read(
        self, policies: Collection[str], names: Collection[str], *, within: str = "", like: str = ""
    ) -> dict[Key, Estimate]:
        """Numbers of some policies.

        Args:
            policies: by digest.
            names: as in `views.numbers`.
            within: slice, such as `language=de`; all items where empty.
            like: names that begin with this are read, too.
        """
        wanted = number.c.name.in_(names)
        if like:
            wanted |= number.c.name.startswith(like, autoescape=True)
        columns = [number.c[name] for name in ("policy", "name", "suite", *Estimate._fields)]
        found: dict[Key, Estimate] = {}
        with reading(self._engine) as connection:
            for part in _parts(policies):
                where = and_(number.c.policy.in_(part), number.c.numerics == self._condition,
                             number.c.slice == within, wanted)  # fmt: skip
                for row in connection.execute(select(*columns).where(where)):
                    policy, name, suite, *values, method = tuple(row)
                    # The same few words, tens of thousands of times.
                    key = (intern(policy), intern(name), intern(suite))
                    found[key] = Estimate(*values, method=intern(method))
        return found

    def slices(self, policy: str) -> tuple[str, ...]:
        """Slices there are numbers of, sorted."""
        where = and_(number.c.policy == policy, number.c.numerics == self._condition, number.c.slice != "")
        with reading(self._engine) as connection:
            return tuple(sorted(connection.execute(select(number.c.slice).where(where).distinct()).scalars()))

    def _measured(self, policies: Sequence[str]) -> Mapping[str, list[Measured]]:
        found = self._ledger.suites_of(policies)
        return {p: [one for one in each if one.numerics == self._condition] for p, each in found.items()}

    def _stamps(self, policies: Sequence[str]) -> dict[str, str]:
        query = select(numbered.c.policy, numbered.c.stamp).where(numbered.c.numerics == self._condition)
        with reading(self._engine) as connection:
            return {policy: stamp for policy, stamp in connection.execute(query) if policy in set(policies)}

    def _write(self, policy: str, stamp: str, read: Reader, kin: Kin) -> None:
        key = {"policy": policy, "numerics": self._condition}
        rows = [
            {**key, "slice": one.slice, "name": one.name, "suite": one.suite, **one.value._asdict()}
            for one in numbers_of(read, kin)
        ]
        with writing(self._engine) as connection:
            for table in (number, numbered):
                connection.execute(delete(table).where(and_(*(table.c[k] == v for k, v in key.items()))))
            if rows:
                connection.execute(insert(number), rows)
            connection.execute(insert(numbered).values({**key, "stamp": stamp}))


def _stamp(kin: Kin, measured: Mapping[str, list[Measured]]) -> str:
    """What a policy's numbers depend on: its own suites, of it and of what it is compared to."""
    own = {one.suite for one in measured[kin.own]}
    return digest([MADE, *([one for one in measured[p] if one.suite in own] for p in kin)])


def _parts(values: Iterable[Any]) -> list[list[Any]]:
    listed = list(values)
    return [listed[k : k + AT_ONCE] for k in range(0, len(listed), AT_ONCE)]
