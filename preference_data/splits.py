"""One global rule for ever: which prompts are for training, for selecting and for testing.

A prompt's near-duplicate cluster decides, so a test prompt has no twin in training, in any version. Assignments are
kept and never change: a new prompt joins the split of the prompts it resembles, whatever they were frozen for. Where
those sit in different splits the new prompt is a *bridge*. It gets no split and stays out of every version; as
assignments never change it is a bridge again whenever the rule is asked.
"""

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate
from typing import NamedTuple

from preference_data.duplicates import SimilarTexts, signature
from preference_data.records import Split
from preference_data.store import Assignment

SHARES: dict[Split, float] = {"train": 0.6, "select": 0.1, "test": 0.3}
SALT = "continual-alignment/split/1"

Advance = Callable[[int, int], None]
"""Called with (done, total)."""


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
    homes: dict[bytes, Home] = {}
    settled: set[str] = set()
    for each in assigned:
        home = Home(each.cluster, each.split)
        homes[each.signature] = min(home, homes.get(each.signature, home))
        settled.add(each.prompt_key)
    keys: dict[bytes, list[str]] = defaultdict(list)
    new = sorted(prompts.keys() - settled)
    for done, key in enumerate(new, start=1):
        keys[signature(prompts[key])].append(key)
        if advance:
            advance(done, len(new))
    if not new:
        return Decision((), ())
    return _place(dict(keys), homes)


def _place(keys: Mapping[bytes, list[str]], homes: dict[bytes, Home]) -> Decision:
    """Find a home for every new signature, adding to `homes`. `keys` lists the prompts of each, sorted."""
    index = SimilarTexts(homes.keys() | keys.keys())
    similar = {each: index.to(each) for each in keys}
    bridges = _join_assigned(keys, similar, homes)
    _found_clusters(keys, similar, homes, bridges)
    found = [(key, homes[each], each) for each in keys.keys() - bridges for key in keys[each]]
    assignments = [Assignment(key, home.cluster, home.split, each) for key, home, each in sorted(found)]
    return Decision(tuple(assignments), tuple(sorted(key for each in bridges for key in keys[each])))


def _join_assigned(
    keys: Mapping[bytes, list[str]], similar: Mapping[bytes, list[bytes]], homes: dict[bytes, Home]
) -> set[bytes]:
    """Place what is connected to assigned signatures; return the bridges."""
    bridges: set[bytes] = set()
    queued = {each for each in keys if any(other in homes for other in similar[each])}
    waiting = [(keys[each][0], each) for each in queued]
    heapq.heapify(waiting)
    while waiting:
        _, each = heapq.heappop(waiting)
        around = {homes[other] for other in similar[each] if other in homes}
        if len({home.split for home in around}) > 1:
            bridges.add(each)
            continue
        homes[each] = min(around)
        for other in similar[each]:
            if other in keys and other not in queued:
                queued.add(other)
                heapq.heappush(waiting, (keys[other][0], other))
    return bridges


def _found_clusters(
    keys: Mapping[bytes, list[str]],
    similar: Mapping[bytes, list[bytes]],
    homes: dict[bytes, Home],
    bridges: set[bytes],
) -> None:
    """Make a new cluster of each group of connected signatures that has no home and is no bridge."""
    for founder in sorted(keys.keys() - homes.keys() - bridges, key=lambda each: keys[each][0]):
        if founder in homes:
            continue
        home = Home(keys[founder][0], split_of(keys[founder][0]))
        homes[founder] = home
        frontier = [founder]
        while frontier:
            for other in similar[frontier.pop()]:
                if other not in homes and other not in bridges:
                    homes[other] = home
                    frontier.append(other)
