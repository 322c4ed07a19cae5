"""Held-out preferences: accuracy of every policy on every version, and what each round did to it."""

from collections.abc import Mapping, Sequence
from typing import Literal

from workbench.drift.metrics import Series, accuracy_relative, by_answer, by_quartile, change, hits, mean_margin
from workbench.drift.retention import (
    Matrix,
    average_performance,
    backward_transfer,
    forgetting,
    forward_transfer,
    last,
    retention_matrix,
)
from workbench.drift.uncertainty import Estimate
from workbench.policies.lineage import superseded
from workbench.views.reading import Reader, compare, flipped
from workbench.views.records import NOT_MEASURED, Average, Cell, Change, PolicyView, VersionView

LONG = "long"
"""The answer slice of answers too long to be told apart."""

AVERAGES = {
    "BWT": backward_transfer,
    "forgetting": forgetting,
    "FWT": forward_transfer,
    "Last": last,
    "AP": average_performance,
}


def matrix_of(read: Reader, policies: Sequence[PolicyView], versions: Sequence[VersionView]) -> Matrix:
    """The retention matrix R of the lineage."""
    margins = {p.digest: _margins(read, p.digest, versions) for p in policies}
    return retention_matrix(
        margins,
        policies=[p.digest for p in policies],
        versions=[v.digest for v in versions],
        replaced=_replaced(policies),
    )


def cells(
    read: Reader, matrix: Matrix, policies: Sequence[PolicyView], versions: Sequence[VersionView]
) -> tuple[tuple[Cell, ...], ...]:
    """All that is known of every policy on every version."""
    return tuple(tuple(_cell(read, matrix, p, (i, v)) for i, v in enumerate(versions)) for p in policies)


def changes(matrix: Matrix, policies: Sequence[PolicyView], versions: Sequence[VersionView]) -> tuple[Change, ...]:
    """What every round did to every version, each version once."""
    distinct = {v.digest: i for i, v in reversed(list(enumerate(versions)))}
    return tuple(
        Change(
            round=t,
            version=i,
            kind=_kind(policies, versions[i].digest, t),
            from_parent=matrix.change(t, t - 1, i + 1),
            from_base=matrix.change(t, 0, i + 1),
            flips=flipped(_hits(matrix, t - 1, i), _hits(matrix, t, i)),
            lost_by_quartile=_lost(matrix.margins[t - 1][i], matrix.margins[t][i]),
        )
        for t in range(1, len(policies))
        for i in sorted(distinct.values())
    )


def averages(matrix: Matrix) -> tuple[Average, ...]:
    """Numbers over all rounds, each with its convention."""
    return tuple(Average.of(name, compute(matrix)) for name, compute in AVERAGES.items())


def _cell(read: Reader, matrix: Matrix, policy: PolicyView, place: tuple[int, VersionView]) -> Cell:
    i, version = place
    suite, base = f"retention/{version.digest}", matrix.policies[0]
    margins = matrix.margins[policy.round][i]
    per_token = read.series(policy.digest, suite, "margin_per_token")
    chosen = [read.series(p, suite, "logp_chosen") for p in (policy.digest, base)]
    of_itself = policy.round == 0
    return Cell(
        round=policy.round,
        version=i,
        own=policy.version == version.digest,
        accuracy=matrix.cell(policy.round, i + 1) if margins else NOT_MEASURED,
        above_base=NOT_MEASURED if of_itself else compare(accuracy_relative, margins, matrix.margins[0][i]),
        margin=mean_margin(margins) if margins else NOT_MEASURED,
        margin_per_token=mean_margin(per_token) if per_token else NOT_MEASURED,
        chosen_change=NOT_MEASURED if of_itself else compare(change, *chosen),
        by_answer=_by_answer(read, policy.digest, suite, margins),
    )


def _by_answer(read: Reader, policy: str, suite: str, margins: Series | None) -> Mapping[str, Estimate]:
    """Accuracy per answer, where at least two short ones can be told apart."""
    answers = {row.item: row.slices.get("answer", LONG) for row in read.items(policy, suite, "margin")}
    if margins is None or len(set(answers.values()) - {LONG}) < 2:
        return {}
    return by_answer(margins, answers)


def _kind(
    policies: Sequence[PolicyView], version: str, after: int
) -> Literal["own", "earlier", "replaced", "untrained"]:
    mine = policies[after].version
    before = [p.version for p in policies[1:after] if p.version != mine]
    if version == mine:
        return "own"
    if version not in before:
        return "untrained"
    return "replaced" if version in _replaced(policies[: after + 1]) else "earlier"


def _replaced(policies: Sequence[PolicyView]) -> frozenset[str]:
    return superseded((p.version, p.update) for p in policies if p.version)


def _margins(read: Reader, policy: str, versions: Sequence[VersionView]) -> dict[str, Series]:
    found = {v.digest: read.series(policy, f"retention/{v.digest}", "margin") for v in versions}
    return {digest: one for digest, one in found.items() if one is not None}


def _lost(before: Series | None, after: Series | None) -> tuple[Estimate, ...]:
    if before is None or after is None or before.items != after.items:
        return ()
    return tuple(quarter.lost for quarter in by_quartile(before, after))


def _hits(matrix: Matrix, after: int, place: int) -> Series | None:
    margins = matrix.margins[after][place]
    return None if margins is None else hits(margins)
