"""Anchors by a rule over the lineage: which earlier policies hold a round, and how much.

Accuracy is read from scores of select splits, never of test splits.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from preference_data.records import Pair
from workbench.config import ScheduleSettings
from workbench.tasks import AGE, Anchor, PolicyRef, SliceWeights

NEEDS_ACCURACY = frozenset({"drift", "slice"})
"""Kinds of schedules that look at select splits."""


class Judged(NamedTuple):
    """Select pairs of one round of the lineage, under every policy of it.

    Attributes:
        pairs: of the version that the round trained on.
        margins: one mapping per policy of the lineage, base first: nats by pair key.
    """

    pairs: Sequence[Pair]
    margins: Sequence[Mapping[str, float]]

    def accuracy(self, policy: int) -> float:
        """Share of pairs whose margin is above 0; 0 without pairs."""
        known = [self.margins[policy][p.key] > 0 for p in self.pairs if p.key in self.margins[policy]]
        return sum(known) / len(known) if known else 0.0


def fixed(lineage: Sequence[PolicyRef], settings: ScheduleSettings) -> tuple[Anchor, ...]:
    """Anchors that follow from the lineage alone, each with a weight; the parent is its last policy.

    Kinds that weigh later, or pair by pair, start from what holds new pairs: the parent alone, or the base for `apart`.
    """
    match settings.kind:
        case "uniform":
            weights = [1.0] * len(lineage)
        case "age":
            weights = [settings.strength**age for age in reversed(range(len(lineage)))]
        case "apart":
            lineage = list(dict.fromkeys((lineage[0], lineage[-1])))
            weights = [1.0, 0.0][: len(lineage)]
        case _:
            weights = [0.0] * (len(lineage) - 1) + [1.0]
    total = sum(weights)
    return tuple(Anchor(policy, weight / total) for policy, weight in zip(lineage, weights, strict=True))


def by_drift(anchors: Sequence[Anchor], judged: Mapping[int, Judged], settings: ScheduleSettings) -> tuple[Anchor, ...]:
    """Weight for the policies whose own version has fallen since, in proportion to the fall; the rest is the parent's.

    Args:
        anchors: one per policy of the lineage, base first, parent last.
        judged: by the round (from 1) that trained on the version.
        settings: `strength` is the most that all of them get together.
    """
    parent = len(anchors) - 1
    falls = {t: max(0.0, each.accuracy(t) - each.accuracy(parent)) for t, each in judged.items() if t < parent}
    total = sum(falls.values())
    given = {t: settings.strength * fall / total for t, fall in falls.items()} if total else {}
    weights = [given.get(t, 0.0) for t in range(parent)]
    return tuple(a._replace(weight=w) for a, w in zip(anchors, [*weights, 1 - sum(weights)], strict=True))


def by_slice(anchors: Sequence[Anchor], judged: Mapping[int, Judged], settings: ScheduleSettings) -> SliceWeights:
    """For every value of a slice the policy of the best accuracy on it, the newest among equals."""
    found: dict[str, tuple[float, ...]] = {}
    for value, rows in _by_value(judged, settings.slice).items():
        hits = [sum(each.margins[t].get(pair.key, -1.0) > 0 for each, pair in rows) for t in range(len(anchors))]
        best = max(range(len(anchors)), key=lambda t: (hits[t], t))
        found[value] = _only(best, len(anchors))
    return SliceWeights(settings.slice, found)


def by_age(anchors: Sequence[Anchor], ages: Mapping[int, int], settings: ScheduleSettings) -> SliceWeights:
    """A replayed pair is held by the policy its round started from (`origin`), ended with (`learner`), or by the parent.

    Args:
        anchors: one per policy of the lineage, base first, parent last.
        ages: by age of a version, the round (from 1) that trained on it.
        settings: which of them.
    """
    parent = len(anchors) - 1
    holders = {
        str(age): parent if settings.kind == "apart" else t - (settings.kind == "origin") for age, t in ages.items()
    }
    return SliceWeights(AGE, {age: _only(holder, len(anchors)) for age, holder in holders.items()})


def _by_value(judged: Mapping[int, Judged], name: str) -> dict[str, list[tuple[Judged, Pair]]]:
    values: dict[str, list[tuple[Judged, Pair]]] = defaultdict(list)
    for each in judged.values():
        for pair in each.pairs:
            if name in pair.slices:
                values[pair.slices[name]].append((each, pair))
    return values


def _only(which: int, count: int) -> tuple[float, ...]:
    return tuple(float(place == which) for place in range(count))
