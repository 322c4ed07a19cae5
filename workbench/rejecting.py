"""Rejecting a policy by hand: written down with a reason, seen wherever the policy is, and undone by promoting it."""

from datetime import datetime

from preference_data import audit
from preference_data.database import writing
from workbench.errors import PolicyError
from workbench.places import Places
from workbench.policies.champion import predecessors
from workbench.policies.registry import PolicyRecord

ACTION = "policy rejected"
LOOKED_BACK = 10_000
"""Rejections read."""


def reject(places: Places, policy: str, *, reason: str, by: str) -> PolicyRecord:
    """Say that a policy is not to be used, and go back to the champion before it where it is champion.

    Nothing is deleted: it stays in its lineage, and may be promoted later.

    Args:
        places: the workspace.
        policy: as `registry.resolve` takes it.
        reason: why, for the audit log.
        by: who.

    Returns:
        The policy rejected.

    Raises:
        PolicyError: it is a base, or the champion and no other was champion before.
    """
    registry = places.registry
    record = registry.resolve(policy)
    if record.origin == "base":
        raise PolicyError(f"{record.name} is a base, which every policy descends from; reject a policy of a round")
    if registry.resolve("champion").digest == record.digest:
        registry.rollback(reason=reason, by=by, to=next_champion(places))
    note_rejection(places, record.digest, reason=reason, by=by)
    return record


def next_champion(places: Places) -> str:
    """Digest of the last champion before the present one that nobody rejected.

    Raises:
        PolicyError: there is none.
    """
    history, gone = places.registry.history(), rejections(places)
    # One that was promoted twice is among those before itself.
    left = [each for each in predecessors(history) if each not in gone and each != history[-1].new]
    if not left:
        raise PolicyError(
            "no champion before the present one that nobody rejected; promote another policy by hand first"
        )
    return left[-1]


def note_rejection(places: Places, digest: str, *, reason: str, by: str) -> None:
    """Write down that somebody rejects a policy; a champion stays champion until somebody moves it."""
    with writing(places.store.engine) as connection:
        audit.record(connection, ACTION, {"policy": digest, "reason": reason}, by=by)


def rejections(places: Places) -> dict[str, audit.Entry]:
    """Policies that stand rejected by hand, with the last entry each; whoever was made champion since does not."""
    found: dict[str, audit.Entry] = {}
    for entry in audit.entries(places.store.engine, last=LOOKED_BACK, action=ACTION):
        found.setdefault(entry.facts["policy"], entry)
    since = {move.new: datetime.fromisoformat(move.at) for move in places.registry.history() if move.kind == "promote"}
    return {p: entry for p, entry in found.items() if p not in since or since[p] < entry.at}
