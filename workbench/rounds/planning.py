"""From settings, which name things, to a plan, which holds what they name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from preference_data.simulate import GUIDELINES
from preference_data.versions import Version, load_version
from workbench.answers import GOOD, SIDE, answers_of
from workbench.config import (
    AI,
    MODEL,
    AfterSettings,
    MergingSettings,
    MovingSettings,
    ObjectiveSettings,
    PenaltySettings,
    ReplaySettings,
    RoundSettings,
    ScheduleSettings,
    TrainingSettings,
)
from workbench.errors import ConfigError
from workbench.objects import entry
from workbench.policies.registry import PolicyRecord, Registry
from workbench.rewards import reward_named
from workbench.rounds.holding import earlier_versions
from workbench.rounds.schedules import fixed
from workbench.tasks import FILE, HASH, Anchor, Past, Plan, PolicyRef, VersionRef


def resolve_plan(
    settings: RoundSettings, registry: Registry, version: Version, reward_models: tuple[PolicyRef, ...] = ()
) -> Plan:
    """The plan of a round. Nothing is loaded or written.

    Two names of one policy (`parent` and `base` in a first round) become one anchor with the sum of their weights.

    Args:
        settings: as a person wrote them.
        registry: what policies there are.
        version: the version the settings name; those of earlier rounds lie beside it.
        reward_models: those that rewards name by their digests.

    Raises:
        ConfigError: a guideline or a reward is unknown, the version to be replaced was never trained on, or pairs may be longer
            than the base can read, or fresh answers leave a prompt no room in it.
        PolicyError: the parent or an anchor does not exist.
    """
    unknown = [g for g in settings.evaluation.guidelines if g not in GUIDELINES]
    if unknown:
        raise ConfigError(
            f"evaluation.guidelines: unknown guideline '{unknown[0]}'; known guidelines: {', '.join(GUIDELINES)}"
        )
    for reward in (*settings.online.rewards, *([settings.online.guard] if settings.online.guard else [])):
        if not reward.by.startswith((MODEL, AI)):  # models were found, or there would be no digest
            reward_named(reward)
    parent = registry.resolve(settings.parent)
    lineage = registry.lineage(parent.digest)
    require_positions(lineage[0], settings.training.max_length)
    if settings.online.on:
        _require_room(lineage[0], settings.online.max_new_tokens)
    known = {"parent": parent, "base": lineage[0]}
    anchors: dict[str, Anchor] = {}
    for named in settings.anchors:
        record = known.get(named.policy) or registry.resolve(named.policy)
        weight = named.weight + (anchors[record.digest].weight if record.digest in anchors else 0)
        anchors[record.digest] = Anchor(registry.ref(record), weight)
    past = tuple(_past(registry, record, version.path.parent) for record in lineage)
    if isinstance(settings.update, str) and settings.update not in {p.version.digest for p in past if p.version}:
        raise ConfigError(
            f"update: version {settings.update[:12]} was not trained on in this lineage; name one that was"
        )
    by_rule = settings.schedule.kind != "given"
    plan = Plan(
        number=len(lineage),
        parent=registry.ref(parent),
        base=registry.ref(lineage[0]),
        version=version_ref(version.digest, version.path.parent),
        anchors=fixed([p.policy for p in past], settings.schedule) if by_rule else tuple(anchors.values()),
        history=history(lineage, version.path.parent),
        update=settings.update,
        objective=settings.objective,
        training=settings.training,
        numerics=settings.numerics,
        evaluation=settings.evaluation.model_copy(update={"suites": tuple(map(_pinned, settings.evaluation.suites))}),
        gate=settings.gate,
        lineage=past,
        start_from=settings.start,
        schedule=settings.schedule,
        replay=settings.replay,
        moving=settings.moving,
        penalties=settings.penalties,
        merging=settings.merging,
        after=settings.after,
        online=settings.online,
        judged="child" if settings.training.method == "full" and settings.judged == "merged" else settings.judged,
        reward_models=reward_models,
    )
    if plan.training.method == "lora" and plan.start.kind == "full" and plan.start.digest != plan.base.digest:
        raise ConfigError(
            f"training.method = 'lora', but policy {plan.start.digest[:12]} that training starts from has full weights of its own; use "
            "method = 'full', or export it and begin a lineage over it: `workbench init --base`"
        )
    return _without_what_has_no_effect(plan)


def require_positions(base: PolicyRecord, max_length: int) -> None:
    """Refuse pairs that may be longer than a base can read; learned positions end there, others were never trained beyond.

    Raises:
        ConfigError: says how long they may be.
    """
    positions: int | None = base.facts.get("max_position_embeddings")
    if positions and max_length > positions:
        raise ConfigError(
            f"training.max_length = {max_length}, but base {base.name} reads at most {positions} tokens "
            f"(max_position_embeddings); set training.max_length = {positions} or less"
        )


def _require_room(base: PolicyRecord, max_new_tokens: int) -> None:
    """Refuse fresh answers so long that no prompt fits before them; prompts that do not are left out by the round.

    Raises:
        ConfigError: says how long they may be.
    """
    positions: int | None = base.facts.get("max_position_embeddings")
    if positions and max_new_tokens >= positions:
        raise ConfigError(
            f"online.max_new_tokens = {max_new_tokens}, but base {base.name} reads at most {positions} tokens "
            f"(max_position_embeddings), prompt and answer together; set online.max_new_tokens to less than {positions}"
        )


def require_something_to_learn(plan: Plan) -> None:
    """Refuse a version without what a round learns from, where it has single answers.

    Raises:
        ConfigError: says what there is and what to do.
    """
    version, name = load_version(Path(plan.version.path)), plan.version.digest[:12]
    if not plan.objective.of_answers:
        if version.manifest.singles and not version.counts["train"]:
            by = f"online.objective = '{plan.online.objective}' takes prompts" if plan.online.on else (
                f"objective.loss = '{plan.objective.loss}' learns")  # fmt: skip
            raise ConfigError(f"version {name} has {version.manifest.singles['train']} single answers to train on and no pairs, which {by} "
                              "from; use objective.loss = 'kto', or freeze pairs")  # fmt: skip
        return
    answers = answers_of(version)
    good, prompts = sum(one.slices[SIDE] == GOOD for one in answers), len({one.prompt.key for one in answers})
    if not 0 < good < len(answers) or prompts < 2:
        raise ConfigError(f"version {name} has {good} good and {len(answers) - good} bad answers to {prompts} prompts to train on; "
                          f"objective.loss = '{plan.objective.loss}' needs some of each, to two prompts or more; collect thumbs of the "
                          "other kind, or pairs, and freeze again")  # fmt: skip


def _past(registry: Registry, record: PolicyRecord, versions: Path) -> Past:
    version = version_ref(record.version, versions) if record.version else None
    return Past(registry.ref(record), version, record.facts.get("update", False))


FIXED = frozenset({"given", "uniform", "age"})
"""Schedules whose weights follow from the lineage alone, and so are in the plan's anchors."""
BY_PAIRS = ("epochs", "batch_size", "accumulation")
"""Settings of training that count pairs; how much fresh answers a step learns from, and how many steps, `[online]` says."""


def _without_what_has_no_effect(plan: Plan) -> Plan:
    """The same round under the same identity, whatever its settings say about pairs that are not there.

    A first round with replay is a first round.
    """
    if plan.schedule.kind in FIXED:
        plan = replace(plan, schedule=ScheduleSettings())
    if plan.online.on:  # of pairs, as a method may say: `online.beta` and `online.beta_old` hold prompts in their place
        training = plan.training.model_copy(update={name: getattr(TrainingSettings(), name) for name in BY_PAIRS})
        plan = replace(plan, penalties=PenaltySettings(), objective=ObjectiveSettings(), training=training)
    if plan.objective.of_answers:  # what a method lets no replayed pair lose is the logit of a pair
        plan = replace(plan, penalties=PenaltySettings())
    if plan.parent.digest == plan.base.digest:
        plan = replace(plan, start_from="parent")
    plan = replace(plan, **_plain_where_off(plan))
    if earlier_versions(plan):
        return plan
    penalties = plan.penalties.model_copy(
        update={"kl_old": 0.0, "hold": 0.0, "ewc": 0.0, "ewc_pairs": PenaltySettings().ewc_pairs, "orthogonal": 0.0}
    )
    if not penalties.kl_new:
        penalties = penalties.model_copy(update={"kl_budget": None})
    anchors = tuple(anchor for anchor in plan.anchors if anchor.weight > 0)
    return replace(plan, schedule=ScheduleSettings(), anchors=anchors, replay=ReplaySettings(), penalties=penalties)


def _pinned(suite: str) -> str:
    """The name of a suite; of one in a file with the hash of the file, which is then part of the round's identity.

    Raises:
        ConfigError: there is no such file.
    """
    if not suite.startswith(FILE) or "#" in suite:
        return suite
    path = Path(suite.removeprefix(FILE)).absolute()
    if not path.is_file():
        raise ConfigError(f"evaluation.suites: {path}: no such file; expected JSONL with question, options and answer")
    return f"{FILE}{path}#{entry(path).sha256[:HASH]}"


def _plain_where_off(plan: Plan) -> dict[str, Any]:
    """Sections without what only concerns parts of them that are off."""
    penalties, defaults = plan.penalties, PenaltySettings()
    off: dict[str, Any] = {}
    if not (penalties.kl_new or penalties.kl_old or penalties.kl_base):
        off["kl_direction"] = defaults.kl_direction
    if not penalties.ewc:
        off["ewc_pairs"] = defaults.ewc_pairs
    after, untold = plan.after, AfterSettings()
    plain = {"energy": untold.energy} if after.overlap is None else {}
    plain |= {"density": untold.density} if after.merge in {"linear", "slerp"} else {}
    return {
        "replay": _replay_with_effect(plan) if plan.replay.on else ReplaySettings(),
        "moving": plan.moving if plan.moving.share else MovingSettings(),
        "penalties": penalties.model_copy(update=off),
        "merging": plan.merging if plan.merging.kind != "none" else MergingSettings(),
        "after": after.model_copy(update=plain),
    }


def version_ref(digest: str, directory: Path) -> VersionRef:
    """What jobs are told of a version."""
    return VersionRef(digest, str(directory / digest))


def history(lineage: tuple[PolicyRecord, ...], directory: Path) -> tuple[VersionRef, ...]:
    """Versions a lineage was trained on, oldest first, each once."""
    digests = dict.fromkeys(p.version for p in lineage if p.version)
    return tuple(version_ref(d, directory) for d in digests)


def _replay_with_effect(plan: Plan) -> ReplaySettings:
    replay = plan.replay
    one_draw = plan.training.epochs == 1 or replay.share == "all" or replay.answers == "fresh"
    changes: dict[str, Any] = {"draw": "round"} if one_draw else {}
    if plan.online.on:  # prompts weigh nothing
        changes |= {"weight": 1.0, "age_weight": 1.0}
    return replay.model_copy(update=changes)
