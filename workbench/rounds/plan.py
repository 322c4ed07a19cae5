"""A round's identity: the digest of everything that determines its outcome.

Paths and machines are left out, digests kept, so that the same plan on another machine is the same round.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from preference_data.records import digest
from workbench.errors import WiringError
from workbench.policies.lineage import superseded
from workbench.tasks import Plan, PolicyRef, suite_label


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain values: digests instead of paths, settings as they were resolved."""
    return {
        "number": plan.number,
        "parent": plan.parent.digest,
        "base": plan.base.digest,
        "tokenizer": plan.base.tokenizer,
        "version": plan.version.digest,
        "anchors": [{"policy": a.policy.digest, "weight": a.weight} for a in plan.anchors],
        "history": [v.digest for v in plan.history],
        "update": plan.update,
        "objective": plan.objective.model_dump(mode="json"),
        "training": plan.training.model_dump(mode="json"),
        "numerics": plan.numerics.model_dump(mode="json"),
        "evaluation": plan.evaluation.model_dump(mode="json") | {"suites": [*map(suite_label, plan.evaluation.suites)]},
        "gate": plan.gate.model_dump(mode="json"),
        **_beyond_the_plain(plan),
    }


def _beyond_the_plain(plan: Plan) -> dict[str, Any]:
    """What differs from a plain round, so that a plain one keeps its identity whatever else becomes possible."""
    parts = {
        "schedule": plan.schedule,
        "replay": plan.replay,
        "moving": plan.moving,
        "penalties": plan.penalties,
        "merging": plan.merging,
        "after": plan.after,
        "online": plan.online,
    }
    changed = {
        name: found for name, part in parts.items() if (found := part.model_dump(mode="json", exclude_defaults=True))
    }
    words = {"start": (plan.start_from, "parent"), "judged": (plan.judged, "child")}
    return changed | {name: given for name, (given, default) in words.items() if given != default}


def plan_digest(plan: Plan) -> str:
    """SHA-256 of the plan's canonical JSON."""
    return digest(plan_as_json(plan))


def replaced(plan: Plan) -> frozenset[str]:
    """Digests of versions whose preference this round or an earlier one replaced."""
    past = [(each.version.digest, each.update) for each in plan.lineage if each.version]
    return superseded([*past, (plan.version.digest, plan.update)])


def check_lineage(plan: Plan) -> None:
    """Refuse a plan whose policies do not share one base and tokenizer.

    Raises:
        WiringError: names the policy that sits elsewhere.
    """
    for name, policy in (("parent", plan.parent), *((f"anchor {i + 1}", a.policy) for i, a in enumerate(plan.anchors))):
        for what in ("base", "tokenizer"):
            given, expected = getattr(policy, what), getattr(plan.base, what)
            if given != expected:
                raise WiringError(
                    f"{name} ({policy.digest[:12]}) sits on {what} {given[:12]}, the round on {expected[:12]}; "
                    "choose policies of one lineage, or adopt this one with its own base"
                )


MEASURED = 3
"""Raised whenever scoring, sampling or a suite changes, so that older numbers in a ledger are not compared."""


def measuring_condition(plan: Plan) -> str:
    """Under what conditions a policy is measured; numbers of different conditions are not compared.

    What is measured (suites, versions) is not part of it; how it is measured is.
    """
    return condition_of(plan_as_json(plan))


def condition_of(plan: Mapping[str, Any]) -> str:
    """The same from a plan as the journal keeps it."""
    how = {key: value for key, value in plan["evaluation"].items() if key not in {"suites", "batch_size"}}
    numbers = [plan["numerics"]["dtype"], plan["numerics"].get("base", "whole")]
    return digest([MEASURED, *numbers, plan["training"]["max_length"], how])[:16]


@dataclass(frozen=True, slots=True)
class Named:
    """A policy of the round and what the round calls it."""

    name: str
    policy: PolicyRef


def distinct_policies(plan: Plan) -> tuple[Named, ...]:
    """Base, parent and anchors, each policy once, under the first of its names."""
    named = [Named("base", plan.base), Named("parent", plan.parent)]
    named += [Named(f"anchor {i + 1}", a.policy) for i, a in enumerate(plan.anchors)]
    seen: dict[str, Named] = {}
    for n in named:
        seen.setdefault(n.policy.digest, n)
    return tuple(seen.values())
