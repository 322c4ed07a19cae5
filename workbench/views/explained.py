"""Why a version fell: the training pairs of the round that did it, where somebody asked."""

import json
from collections import Counter
from itertools import accumulate
from typing import NamedTuple

from preference_data.pair_table import pair_of
from preference_data.records import Pair
from workbench.places import Places
from workbench.rounds.run import explaining
from workbench.tasks import INFLUENCE


class Cause(NamedTuple):
    """A training pair and its part in the fall.

    Attributes:
        share: of all that training pairs did for or against it; negative where the pair held against it.
    """

    share: float
    pair: Pair


class Explained(NamedTuple):
    """What made a version fall.

    Attributes:
        causes: all training pairs, the worst first.
        half: so many of them, the worst, did half of what was done for the fall.
        by_slice: sums of shares by slice and value, the furthest from none first.
    """

    causes: tuple[Cause, ...]
    half: int
    by_slice: tuple[tuple[str, str, float], ...]


def explained(places: Places, round_digest: str, version: str, within: str) -> Explained | None:
    """What was found out about a fall; None where nobody asked.

    Args:
        places: the workspace.
        round_digest: of the round.
        version: digest of what fell.
        within: slice of it; all of it where empty.
    """
    name = explaining(version, within)
    done = (s.output for s in places.journal.status(round_digest).steps if s.name == name)
    output = next((digest for digest in done if digest), None)
    if output is None:
        return None
    lines = (places.objects.path(output) / INFLUENCE).read_text(encoding="utf-8").splitlines()
    causes = tuple(Cause(row["share"], pair_of(row["pair"])) for row in map(json.loads, lines))
    sums = list(accumulate(max(cause.share, 0.0) for cause in causes))
    half = sum(so_far < sums[-1] / 2 for so_far in sums) + 1 if sums else 0
    return Explained(causes, half, _by_slice(causes))


def _by_slice(causes: tuple[Cause, ...]) -> tuple[tuple[str, str, float], ...]:
    found: Counter[tuple[str, str]] = Counter()
    for cause in causes:
        for name, value in cause.pair.slices.items():
            found[name, value] += cause.share  # pyright: ignore[reportArgumentType]
    listed = ((name, value, float(share)) for (name, value), share in found.items())
    return tuple(sorted(listed, key=lambda one: -abs(one[2])))
