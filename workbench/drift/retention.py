"""The retention matrix of a lineage and the averages made from it, each with its convention named.

R[t, i] is the accuracy on the test pairs of version i after round t; row 0 is the base, and R[t, i] with i > t is
what a policy can do before it was trained on version i. Published values of one name use different denominators
(BWT: T - 1 in GEM 1706.08840, TRACE 2310.06762 and LifeAlign 2509.17183, T in the OnPolicyReplay code), so that a value
without its convention cannot be compared.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from workbench.drift.metrics import Series, accuracy_change, hits
from workbench.drift.uncertainty import Estimate, Floats, average, not_enough, share


class Named(NamedTuple):
    """A value and the convention it was computed by; without the second the first cannot be compared."""

    value: Estimate
    convention: str


class Matrix(NamedTuple):
    """Accuracy of every policy of a lineage on the test pairs of every version.

    Attributes:
        policies: the base, then the child of each round in order.
        versions: versions in the order trained; round t trains on `versions[t - 1]`. Further ones are not yet trained.
        margins: by row and column, margins in nats; None where not measured.
        replaced: rounds (from 1) whose preference a later one replaced: they count neither as forgotten nor in the end.
    """

    policies: tuple[str, ...]
    versions: tuple[str, ...]
    margins: tuple[tuple[Series | None, ...], ...]
    replaced: frozenset[int] = frozenset()

    @property
    def rounds(self) -> int:
        """T, the rounds done."""
        return len(self.policies) - 1

    @property
    def values(self) -> Floats:
        """R, shape (policies, versions); NaN where not measured or not enough data."""
        cells = [[self.cell(t, i).value for i in range(1, len(self.versions) + 1)] for t in range(len(self.policies))]
        return np.array([[np.nan if one is None else one for one in row] for row in cells], dtype=np.float64)

    def cell(self, after: int, version: int) -> Estimate:
        """R[t, i]: accuracy after round t (0 is the base) on version i (from 1)."""
        return self.mean_of([after], version)

    def mean_of(self, rounds: Sequence[int], version: int, weights: Sequence[float] | None = None) -> Estimate:
        """Weighted mean of R[t, i] over rounds t, on the same pairs."""
        found = [self.margins[t][version - 1] for t in rounds]
        rows = [one for one in found if one is not None]
        if len(rows) < len(found):
            return not_enough(0, f"version {version} was not measured after every round of {list(rounds)}")
        if len({one.items for one in rows}) > 1:
            return not_enough(0, f"version {version} was measured on other items after some round of {list(rounds)}")
        scores = np.average([hits(one).values for one in rows], axis=0, weights=weights)
        return share(scores, rows[0].groups)

    def change(self, after: int, before: int, version: int) -> Estimate:
        """R[after, i] - R[before, i], paired."""
        new, old = self.margins[after][version - 1], self.margins[before][version - 1]
        if new is None or old is None:
            return not_enough(0, f"version {version} was not measured after rounds {before} and {after}")
        return accuracy_change(new, old)


def retention_matrix(
    margins: Mapping[str, Mapping[str, Series]],
    *,
    policies: Sequence[str],
    versions: Sequence[str],
    replaced: frozenset[str] = frozenset(),
) -> Matrix:
    """The full R of a lineage.

    Args:
        margins: by policy and version, margins in nats per test pair.
        policies: the base, then the child of each round in order.
        versions: versions in the order trained, then those not yet trained.
        replaced: versions whose preference a later one replaced.

    Raises:
        ValueError: there are more rounds than versions.
    """
    if len(policies) > len(versions) + 1:
        raise ValueError(
            f"a base and one policy per trained version expected, got {len(policies)} policies for "
            f"{len(versions)} versions; name a version once per round that trained on it"
        )
    rows = tuple(tuple(margins.get(p, {}).get(v) for v in versions) for p in policies)
    gone = frozenset(i for i, version in enumerate(versions, 1) if version in replaced)
    return Matrix(tuple(policies), tuple(versions), rows, gone)


def backward_transfer(matrix: Matrix) -> Named:
    """BWT = 1/(T-1) sum_{i<T} (R[T,i] - R[i,i]); negative means forgotten (GEM 1706.08840)."""
    total = matrix.rounds
    changes = [matrix.change(total, i, i) for i in range(1, total) if i not in matrix.replaced]
    return _named(changes, _left_out("BWT over T-1: mean over i < T of R[T,i] - R[i,i]", matrix), matrix)


def forward_transfer(matrix: Matrix) -> Named:
    """FWT = 1/(T-1) sum_{i=2..T} (R[i-1,i] - R[0,i]): what earlier rounds did for a version before its own."""
    changes = [matrix.change(i - 1, 0, i) for i in range(2, matrix.rounds + 1)]
    return _named(changes, "FWT over T-1: mean over i = 2..T of R[i-1,i] - R[0,i], R[0] the base", matrix)


def forgetting(matrix: Matrix) -> Named:
    """F = 1/(T-1) sum_{i<T} (max_{1<=l<T} R[l,i] - R[T,i]); positive means forgotten (Chaudhry et al. 1801.10112).

    The best round is chosen from the data, which biases F upwards, the more so the smaller n; the interval takes
    the choice as given.
    """
    total, changes = matrix.rounds, list[Estimate]()
    for i in (i for i in range(1, total) if i not in matrix.replaced):
        best = max(range(1, total), key=lambda t: _or_lowest(matrix.cell(t, i)))
        changes.append(matrix.change(total, best, i).scaled(-1))
    convention = "forgetting over T-1: mean over i < T of max over 1 <= l < T of R[l,i], minus R[T,i]"
    return _named(changes, _left_out(convention, matrix), matrix)


def last(matrix: Matrix) -> Named:
    """Last = 1/T sum_{i<=T} R[T,i]: the newest policy on every version trained so far (LifeAlign 2509.17183)."""
    cells = [matrix.cell(matrix.rounds, i) for i in range(1, matrix.rounds + 1) if i not in matrix.replaced]
    return _named(cells, _left_out("Last over T: mean over i <= T of R[T,i] (OP of TRACE)", matrix), matrix, fewest=1)


def average_performance(matrix: Matrix) -> Named:
    """AP = 1/T sum_{k<=T} 1/k sum_{i<=k} R[k,i]: how good the lineage was all along (LifeAlign 2509.17183)."""
    total = matrix.rounds
    parts: list[Estimate] = []
    for i in range(1, total + 1):
        weights = [1 / k for k in range(i, total + 1)]
        parts.append(matrix.mean_of(range(i, total + 1), i, weights).scaled(sum(weights)))
    return _named(parts, "AP over T: mean over k <= T of the mean over i <= k of R[k,i]", matrix, fewest=1)


def _named(parts: Sequence[Estimate], convention: str, matrix: Matrix, *, fewest: int = 2) -> Named:
    if matrix.rounds < fewest:
        return Named(not_enough(0, f"{matrix.rounds} rounds, at least {fewest} needed"), convention)
    if not parts:
        return Named(not_enough(0, "every earlier version was replaced"), convention)
    return Named(average(parts), convention)


def _left_out(convention: str, matrix: Matrix) -> str:
    return f"{convention}; replaced versions left out" if matrix.replaced else convention


def _or_lowest(estimate: Estimate) -> float:
    return -np.inf if estimate.value is None else estimate.value
