"""One global rule for ever: which prompts are for training, for selecting and for testing.

A prompt's near-duplicate cluster decides, so a test prompt has no twin in training, in any version. Assignments are
kept and never change: a new prompt joins the split of the prompts it resembles, whatever they were frozen for. Where
those sit in different splits the new prompt is a *bridge*. It gets no split and stays out of every version; as
assignments never change it is a bridge again whenever the rule is asked.
"""

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from preference_data.duplicates import Signatures, signature
from preference_data.records import Split
from preference_data.store import Assignment

SHARES: dict[Split, float] = {"train": 0.6, "select": 0.1, "test": 0.3}
SALT = "continual-alignment/split/1"

Advance = Callable[[int, int], None]
"""Called with (done, total)."""

Similar = Mapping[int, list[int]]
"""Signatures by a signature they are similar to, as numbers."""


class Home(NamedTuple):
    """Where texts of one signature live."""

    cluster: str
    split: Split


class Decision(NamedTuple):
    """What the rule says about prompts it had not seen.

    Attributes:
        assignments: one per prompt that gets a split, by prompt key.
        bridges: keys of the prompts that resemble prompts of different splits, sorted.
    """

    assignments: tuple[Assignment, ...]
    bridges: tuple[str, ...]


def split_of(cluster: str) -> Split:
    """The split of a new cluster, by a salted hash of its name (the smallest prompt key in it)."""
    drawn = int(hashlib.sha256(f"{SALT}:{cluster}".encode()).hexdigest()[:13], 16) / 16**13
    for split, bound in zip(SHARES, accumulate(SHARES.values()), strict=True):
        if drawn < bound:
            return split
    return "test"


def decide(prompts: Mapping[str, str], assigned: Iterable[Assignment], advance: Advance | None = None) -> Decision:
    """Give each new prompt the split of the prompts it resembles, or a fresh one.

    New prompts join one by one: the one with the smallest key among those that resemble an assigned prompt comes
    first. What resembles none that is assigned, directly or through others, forms new clusters. The outcome depends
    on the prompts and on what was assigned before, never on the order of either.

    Args:
        prompts: text to compare by prompt key; those already assigned are passed over.
        assigned: all assignments so far.
        advance: called with the number of new prompts hashed so far and their total.
    """
    placing, settled = Placing(), set[str]()
    for each in assigned:
        placing.settle(each)
        settled.add(each.prompt_key)
    new = sorted(prompts.keys() - settled)
    for done, key in enumerate(new, start=1):
        placing.add(key, prompts[key])
        if advance:
            advance(done, len(new))
    homes = placing.place()
    bridges = tuple(key for key, home in zip(new, homes, strict=True) if home is None)
    return Decision(tuple(placing.assignments(homes)), bridges)


class Placing:
    """Finds homes for new prompts among all that were ever placed: first settle those, then add the new, then place.

    Signatures lie on disk; what is in memory are keys, and a home for each.
    """

    def __init__(self) -> None:
        self._signatures = Signatures()
        self._settled: list[Home] = []
        self._keys: list[str] = []

    def settle(self, assignment: Assignment) -> None:
        """Take an assignment over."""
        self._signatures.add(assignment.signature)
        self._settled.append(Home(assignment.cluster, assignment.split))

    def add(self, key: str, text: str) -> None:
        """Add a new prompt; keys in ascending order."""
        self._signatures.add(signature(text))
        self._keys.append(key)

    def place(self) -> list[Home | None]:
        """Where each new prompt lives, in the order they were added; None for bridges."""
        if not self._keys:
            return []
        old = len(self._settled)
        # From here on texts are numbers of signatures: the first of those that are equal stands for all.
        alike = self._signatures.alike()
        homes: dict[int, Home] = {}
        for number, home in zip(alike[:old].tolist(), self._settled, strict=True):
            homes[number] = min(home, homes.get(number, home))
        first: dict[int, int] = {}
        for place, number in enumerate(alike[old:].tolist()):
            first.setdefault(number, place)
        similar: defaultdict[int, list[int]] = defaultdict(list)
        for one, other in self._signatures.similar_pairs(np.unique(alike)).tolist():
            similar[one].append(other)
            similar[other].append(one)
        bridges = _join_assigned(first, similar, homes)
        self._found_clusters(first, similar, homes, bridges)
        return [None if number in bridges else homes[number] for number in alike[old:].tolist()]

    def assignments(self, homes: Iterable[Home | None]) -> Iterator[Assignment]:
        """What `place` said, to be stored, sorted by prompt key."""
        old = len(self._settled)
        for place, (key, home) in enumerate(zip(self._keys, homes, strict=True)):
            if home:
                yield Assignment(key, home.cluster, home.split, self._signatures[old + place])

    def _found_clusters(
        self, first: Mapping[int, int], similar: Similar, homes: dict[int, Home], bridges: set[int]
    ) -> None:
        """Make a new cluster of each group of connected signatures that has no home and is no bridge."""
        for founder, place in first.items():  # which came in the order of their keys
            if founder in homes or founder in bridges:
                continue
            key = self._keys[place]
            homes[founder] = home = Home(key, split_of(key))
            frontier = [founder]
            while frontier:
                for other in similar.get(frontier.pop(), ()):
                    if other not in homes and other not in bridges:
                        homes[other] = home
                        frontier.append(other)


def _join_assigned(first: Mapping[int, int], similar: Similar, homes: dict[int, Home]) -> set[int]:
    """Place what is connected to assigned signatures; return the bridges.

    Args:
        first: of each new signature the first prompt that has it.
        similar: to each signature, where there are any.
        homes: of the assigned; gains those that join.
    """
    bridges: set[int] = set()
    queued = {each for each in first if each in homes or any(other in homes for other in similar.get(each, ()))}
    waiting = [(first[each], each) for each in queued]
    heapq.heapify(waiting)
    while waiting:
        _, each = heapq.heappop(waiting)
        around = {homes[other] for other in (each, *similar.get(each, ())) if other in homes}
        if len({home.split for home in around}) > 1:
            bridges.add(each)
            continue
        homes[each] = min(around)
        for other in similar.get(each, ()):
            if other in first and other not in queued:
                queued.add(other)
                heapq.heappush(waiting, (first[other], other))
    return bridges
