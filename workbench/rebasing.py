"""Moving a lineage to a new base: its rounds once more, on the same versions, under the same settings."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.config import RoundSettings
from workbench.config.written import as_toml
from workbench.errors import ConfigError
from workbench.policies.registry import PolicyRecord

KEPT = ("update", "objective", "training", "numerics", "evaluation", "gate", "schedule", "replay", "moving", "penalties", "merging", "after",
        "online", "start", "judged")  # fmt: skip
"""Parts of a plan that do not name policies."""


def check_movable(lineage: Sequence[PolicyRecord], base: PolicyRecord, plans: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a lineage whose rounds cannot be run again, before anything is trained.

    Args:
        lineage: base first.
        base: the new one.
        plans: of recorded rounds, by digest.

    Raises:
        ConfigError: it sits on this base already, a policy was made elsewhere, or an anchor is of another lineage.
    """
    if lineage[0].digest == base.digest:
        raise ConfigError(f"the lineage of {lineage[-1].name} sits on base {base.name} already; give another base")
    for policy in lineage[1:]:
        if policy.round is None:
            raise ConfigError(
                f"policy {policy.name} ({policy.digest[:12]}) was adopted, so that nobody knows how to make it on another "
                "base; choose a lineage of rounds with --policy"
            )
        moved_settings(plans[policy.round], {each.digest: base.digest for each in lineage})


def settings_of(plan_json: str) -> RoundSettings:
    """The settings of a recorded round: planned again they make the same round, but for `unnamed_suites`."""
    plan = json.loads(plan_json)
    return moved_settings(plan, {each: each for each in (plan["parent"], *(a["policy"] for a in plan["anchors"]))})


def unnamed_suites(plan: Mapping[str, Any]) -> list[str]:
    """Suites that a recorded round measured and its settings cannot name: of a file of questions, name and hash are kept."""
    return [name for name in plan["evaluation"]["suites"] if "/" in name and not name.startswith("lm-eval/")]


def to_copy(plan_json: str, settings: RoundSettings | None = None) -> str:
    """The settings of a recorded round as a file, which says what is missing in it.

    Args:
        plan_json: as the journal keeps it.
        settings: changed ones in their place.
    """
    text, unnamed = as_toml(settings or settings_of(plan_json)), unnamed_suites(json.loads(plan_json))
    if not unnamed:
        return text
    names = ", ".join(json.dumps(name, ensure_ascii=False) for name in unnamed)
    return f"# Not in here: {names}; to measure it again, add file:PATH of its questions to suites of [evaluation].\n{text}"


def moved_settings(plan: Mapping[str, Any], moved: Mapping[str, str]) -> RoundSettings:
    """The settings of a recorded round, with the policies of the new lineage in place of the old.

    Args:
        plan: as the journal keeps it.
        moved: digest in the new lineage by digest in the old one, the base included.

    Raises:
        ConfigError: an anchor is no policy of the lineage.
    """
    values: dict[str, Any] = {name: plan[name] for name in KEPT if name in plan}
    if "schedule" not in values:
        strangers = [a["policy"] for a in plan["anchors"] if a["policy"] not in moved]
        if strangers:
            raise ConfigError(
                f"round {plan['number']}: anchor {strangers[0][:12]} is no policy of the lineage that is moved; "
                "only rounds anchored to their own lineage can be run on another base"
            )
        merged: dict[str, float] = {}
        for each in plan["anchors"]:
            merged[moved[each["policy"]]] = merged.get(moved[each["policy"]], 0.0) + each["weight"]
        values["anchors"] = [{"policy": policy, "weight": weight} for policy, weight in merged.items()]
    # A file of questions is known by its name and hash alone; what it measured can be asked of the new lineage later.
    unnamed = unnamed_suites(plan)
    suites = [name for name in plan["evaluation"]["suites"] if name not in unnamed]
    values["evaluation"] = {**plan["evaluation"], "suites": suites}
    # A plan holds what its method set, so no method is to add to it.
    return RoundSettings.model_validate(
        {**values, "method": "plain", "parent": moved[plan["parent"]], "version": plan["version"]}
    )
