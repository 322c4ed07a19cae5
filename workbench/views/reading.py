"""Numbers of one measuring condition, read from the ledger once each."""

from collections.abc import Callable, Collection, Sequence

from workbench.drift.ledger import Ledger, Measured
from workbench.drift.metrics import Series, Turned, flips, series, turned
from workbench.drift.uncertainty import Estimate
from workbench.tasks import Item
from workbench.views.records import NOT_MEASURED


class Reader:
    """The ledger under one condition.

    Args:
        ledger: everything measured.
        condition: how; None reads nothing.
        slice_: as in `language=de`: only items of this slice; all where empty.
    """

    def __init__(self, ledger: Ledger, condition: str | None, slice_: str = "") -> None:
        self._ledger, self._condition, self._slice = ledger, condition or "", slice_
        self._items: dict[tuple[str, str, str], list[Item]] = {}
        self._suites: dict[str, tuple[Measured, ...]] = {}
        self._whole: Reader | None = None

    def within(self, slice_: str) -> "Reader":
        """The same of one slice, by what is read here."""
        part = Reader(self._ledger, self._condition, slice_)
        part._whole = self
        return part

    def forget(self, policies: Collection[str]) -> None:
        """Let go of what was read of some policies."""
        self._items = {key: rows for key, rows in self._items.items() if key[0] not in policies}

    def items(self, policy: str, suite: str, metric: str) -> list[Item]:
        """Rows behind one number, by item id; empty where not measured."""
        key = (policy, suite, metric)
        if key not in self._items:
            self._items[key] = self._read(policy, suite, metric)
        return self._items[key]

    def _read(self, policy: str, suite: str, metric: str) -> list[Item]:
        if self._whole is not None:
            name, _, value = self._slice.partition("=")
            return [row for row in self._whole.items(policy, suite, metric) if row.slices.get(name) == value]
        # Of answers the texts are needed; of pairs they would be most of what is read.
        return self._ledger.items(policy, suite, metric, self._condition, brief=suite.startswith("retention/"))

    def series(self, policy: str, suite: str, metric: str) -> Series | None:
        """One metric; None where not measured."""
        rows = self.items(policy, suite, metric)
        return series(rows) if rows else None

    def measured(self, policy: str) -> tuple[Measured, ...]:
        """What has been measured of a policy under this condition, sorted."""
        if policy not in self._suites:
            found = self._ledger.suites(policy)
            self._suites[policy] = tuple(one for one in found if one.numerics == self._condition)
        return self._suites[policy]


def choose_condition(ledger: Ledger, lineage: Sequence[str]) -> str | None:
    """The condition of the newest policy that was measured under any; of several, the one most of its line shares.

    A round measures its child, parent, anchors and base alike, so that its condition has the most policies and, for
    the child, the most numbers.

    Args:
        ledger: everything measured.
        lineage: digests of policies, the base first.
    """
    found = {policy: [one.numerics for one in ledger.suites(policy)] for policy in lineage}
    newest = next((found[policy] for policy in reversed(lineage) if found[policy]), list[str]())
    shared = {one: sum(one in conditions for conditions in found.values()) for one in newest}
    return max(shared, key=lambda one: (shared[one], newest.count(one), one), default=None)


def compare(compute: Callable[[Series, Series], Estimate], first: Series | None, second: Series | None) -> Estimate:
    """A comparison of two series, not measured where one is missing."""
    return compute(first, second) if first is not None and second is not None else NOT_MEASURED


def flipped(before: Series | None, after: Series | None) -> Turned | None:
    """How many flipped between two series of scores; None where they are missing or of unlike items."""
    if before is None or after is None or before.items != after.items:
        return None
    found = flips(before, after)
    return turned(len(found.lost), len(found.gained), found.n)
