"""Ancestry of policies, as pure functions over a table of parents."""

from collections.abc import Iterable, Mapping

from preference_data.records import digest as content_digest
from workbench.errors import PolicyError

STEPS = 20
Parents = Mapping[str, str | None]
"""Each policy's parent by digest; None for a base."""


def ancestry(digest: str, parents: Parents) -> tuple[str, ...]:
    """A policy and all it descends from, the base first.

    Raises:
        PolicyError: the policy or one of its ancestors is not in the table, or descends from itself.
    """
    found: list[str] = []
    current: str | None = digest
    while current is not None:
        if current not in parents:
            raise PolicyError(f"policy {current[:12]}: unknown ancestor of {digest[:12]}; adopt or restore it first")
        if current in found:
            raise PolicyError(f"policy {current[:12]} descends from itself; restore the ledger from a backup")
        found.append(current)
        current = parents[current]
    return tuple(reversed(found))


def depth(digest: str, parents: Parents) -> int:
    """How many rounds lie between a policy and its base; 0 for a base."""
    return len(ancestry(digest, parents)) - 1


def at_depth(number: int, parents: Parents) -> tuple[str, ...]:
    """All policies a number of rounds away from their base, sorted."""
    return tuple(sorted(d for d in parents if depth(d, parents) == number))


def points_between(parent: str, child: str) -> dict[float, str]:
    """What the ledger calls mixtures of two policies, by the second one's share in whole twentieths.

    Nothing lists those measured: whoever knows the ends knows all names there can be.
    """
    return {k / STEPS: content_digest(["between", parent, child, k]) for k in range(1, STEPS)}


def superseded(rounds: Iterable[tuple[str, bool | str]]) -> frozenset[str]:
    """Versions whose preference a later one replaced.

    Args:
        rounds: oldest first, the version each trained on, and its `update`: True if that replaces the version before
            it, or the version it replaces.

    >>> sorted(superseded([("a", False), ("b", False), ("c", "a"), ("d", True)]))
    ['a', 'c']

    Whoever is trained on again counts again:

    >>> superseded([("a", False), ("b", True), ("a", False)])
    frozenset()
    """
    seen: list[str] = []
    gone: set[str] = set()
    for version, update in rounds:
        gone.discard(version)
        before = [other for other in seen if other != version]
        if update is True:
            gone.update(before[-1:])
        elif update:
            gone.add(update)
        seen = [*before, version]
    return frozenset(gone)
