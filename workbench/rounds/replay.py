"""What a round trains on: the new version, and pairs of earlier rounds.

Every choice is a function of pairs, settings and margins alone: the same lineage replays the same pairs on every
machine.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, zip_longest

from preference_data.records import Pair, digest
from workbench.config import ReplaySettings
from workbench.tasks import AGE, EPOCHS

QUARTILES = 4


def mixed(
    new: Sequence[Pair],
    earlier: Mapping[int, Sequence[Pair]],
    settings: ReplaySettings,
    margins: Mapping[str, float],
    *,
    epochs: int = 1,
) -> list[Pair]:
    """The training pairs of a round, each with its age as a slice.

    Args:
        new: of the new version.
        earlier: of earlier rounds, by age in rounds (1 is the round before).
        settings: how many, which, and what age does to weights.
        margins: of earlier pairs under the parent, nats, by pair key; used by `choice = "margin"` only.
        epochs: of the round; with `draw = "epoch"` a replayed pair has its epochs as a slice.
    """
    return [*_aged(new, 0, 1.0), *replayed(new, earlier, settings, margins, epochs=epochs)]


def replayed(
    new: Sequence[Pair],
    earlier: Mapping[int, Sequence[Pair]],
    settings: ReplaySettings,
    margins: Mapping[str, float],
    *,
    epochs: int = 1,
) -> list[Pair]:
    """The earlier ones among them; arguments as of `mixed`."""
    candidates = without_contradictions(new, earlier)
    counts = _shares(len(new), {age: len(pairs) for age, pairs in candidates.items()}, settings)
    draws = epochs if settings.draw == "epoch" else 1
    chosen = (
        _aged(
            _drawn(_ordered(candidates[age], settings, margins), count, draws),
            age,
            _weight(len(new), count, age, settings),
        )
        for age, count in counts.items()
    )
    return list(chain.from_iterable(chosen))


def _drawn(ordered: Sequence[Pair], count: int, draws: int) -> list[Pair]:
    """The first ones; of several draws each goes on where the one before ended, and begins again at the end."""
    if draws == 1:
        return list(ordered[:count])
    epochs: dict[int, list[str]] = defaultdict(list)
    for place in range(count * draws):
        epochs[place % len(ordered)].append(str(1 + place // count))
    return [replace(ordered[i], slices={**ordered[i].slices, EPOCHS: " ".join(each)}) for i, each in epochs.items()]


def _weight(new: int, count: int, age: int, settings: ReplaySettings) -> float:
    """What the weights of one round's replayed pairs are multiplied by."""
    own = new / max(count, 1) if settings.weight == "balanced" else settings.weight
    return own * settings.age_weight**age


def without_contradictions(new: Sequence[Pair], earlier: Mapping[int, Sequence[Pair]]) -> dict[int, list[Pair]]:
    """Earlier pairs about answers that nothing newer speaks of, newest first."""
    said = {_about(pair) for pair in new}
    left: dict[int, list[Pair]] = {}
    for age in sorted(earlier):
        left[age] = [pair for pair in earlier[age] if _about(pair) not in said]
        said |= {_about(pair) for pair in left[age]}
    return left


def _about(pair: Pair) -> tuple[str, frozenset[str]]:
    return pair.prompt.key, frozenset((pair.chosen, pair.rejected))


def _shares(new: int, available: Mapping[int, int], settings: ReplaySettings) -> dict[int, int]:
    """How many of each age: a share of each, or alike for all rounds, where what one lacks the others give."""
    if settings.share == "all":
        return dict(available)
    if settings.of == "each":
        return {age: min(count, round(settings.share * count)) for age, count in available.items()}
    left = min(round(settings.share * new), sum(available.values()))
    found = dict.fromkeys(available, 0)
    while left:
        open_ages = [age for age in available if found[age] < available[age]]
        each, rest = divmod(left, len(open_ages))
        for place, age in enumerate(open_ages):
            more = min(each + (place < rest), available[age] - found[age])
            found[age] += more
            left -= more
    return found


def _ordered(pairs: Sequence[Pair], settings: ReplaySettings, margins: Mapping[str, float]) -> list[Pair]:
    """Pairs in the order in which they are chosen."""
    drawn = sorted(pairs, key=lambda pair: digest([settings.seed, pair.key]))
    if settings.choice == "random":
        return drawn
    strata: dict[object, list[Pair]] = defaultdict(list)
    if settings.choice == "coverage":
        for pair in drawn:
            strata[tuple(sorted(pair.slices.items()))].append(pair)
    else:
        rank = {pair.key: place for place, pair in enumerate(sorted(pairs, key=lambda p: (margins[p.key], p.key)))}
        for pair in drawn:
            strata[rank[pair.key] * QUARTILES // len(pairs)].append(pair)
    return list(_in_turn([strata[name] for name in sorted(strata, key=str)]))


def _in_turn(strata: Sequence[Sequence[Pair]]) -> Iterator[Pair]:
    for one_each in zip_longest(*strata):
        yield from (pair for pair in one_each if pair is not None)


def _aged(pairs: Sequence[Pair], age: int, weight: float) -> list[Pair]:
    return [replace(p, weight=p.weight * weight, slices={**p.slices, AGE: str(age)}) for p in pairs]
