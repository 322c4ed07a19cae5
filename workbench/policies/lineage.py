"""Ancestry of policies, as pure functions over a table of parents."""

from collections.abc import Mapping

from workbench.errors import PolicyError

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
