"""Numbers over all rounds of a lineage, for a page: read from as few rows as they need."""

from collections.abc import Iterator

import numpy as np

from workbench.drift.ledger import Ledger
from workbench.drift.metrics import Series
from workbench.drift.retention import retention_matrix
from workbench.drift.uncertainty import not_enough
from workbench.views.inspection import Overview
from workbench.views.preferences import averages
from workbench.views.records import Average

WHOLE = 30
"""Up to so many rounds the whole matrix is read; beyond, only what averages without AP need, and AP has no number."""


def averages_of(view: Overview, ledger: Ledger) -> tuple[Average, ...]:
    """BWT, forgetting, FWT, Last and AP of a lineage, each with its convention."""
    margins = {policy.digest: dict[str, Series]() for policy in view.policies}
    for after, version in sorted(set(_needed(view))):
        policy = view.policies[after].digest
        items, values, groups = ledger.columns(policy, f"retention/{version}", "margin", view.condition or "")
        if items:
            margins[policy][version] = Series(tuple(items), np.array(values, dtype=np.float64), tuple(groups))
    matrix = retention_matrix(
        margins,
        policies=[p.digest for p in view.policies],
        versions=[v.digest for v in view.versions],
        replaced=view.replaced,
    )
    found = averages(matrix)
    if view.rounds <= WHOLE:
        return found
    why = not_enough(0, f"not computed here beyond {WHOLE} rounds; `workbench drift` does")
    return tuple(each._replace(value=why) if each.name == "AP" else each for each in found)


def _needed(view: Overview) -> Iterator[tuple[int, str]]:
    """Places of the matrix that averages look at: the last row, the diagonal, what was best and what was before."""
    total = view.rounds
    if total <= WHOLE:
        yield from ((t, v.digest) for t in range(total + 1) for v in view.versions)
        return
    for i, version in enumerate(view.versions[:total], start=1):
        yield from ((t, version.digest) for t in (total, i, i - 1, 0, _best(view, version.digest)))


def _best(view: Overview, version: str) -> int:
    """The round before the last after which a version was known best, the first of several, as `forgetting` takes it."""
    suite = f"retention/{version}"
    known = [view.number(p.digest, "accuracy", suite).value for p in view.policies[1:-1]]
    return 1 + max(range(len(known)), key=lambda t: -1.0 if known[t] is None else known[t] or 0.0)
