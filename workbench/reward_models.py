"""Reward models are trained, averaged, and measured on every version of a workspace."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from preference_data.records import digest, now
from workbench import assembly
from workbench.assembly import Where
from workbench.config import MODEL, NumericsSettings, RewardModelSettings, RoundSettings
from workbench.errors import ConfigError
from workbench.items import read_items
from workbench.places import Places, Watch, silent
from workbench.policies.records import PolicyRecord
from workbench.reward_list import RewardModels, RewardRecord, condition_of
from workbench.reward_tasks import RewardItemsJob, RewardJob
from workbench.rewards import Models, Reward
from workbench.rounds.planning import require_positions, version_ref
from workbench.tasks import PolicyRef, reporting


def train_reward_model(
    places: Places,
    name: str,
    settings: RewardModelSettings,
    *,
    where: Where = "auto",
    watch: Watch = silent,
) -> RewardRecord:
    """Train a reward model and measure it on all versions. One trained before, under any name, is not trained again.

    Raises:
        ConfigError: the name is taken, the version has no pairs, or they may be longer than the base can read.
        VersionError, PolicyError: there is no such version or policy.
    """
    settings = places.on_this_machine(settings)
    models, version = RewardModels(places), places.versions.find(settings.version)
    if version.manifest.singles and not version.counts["train"]:
        raise ConfigError(f"version {settings.version} has single answers to train on and no pairs, which reward models learn from; name a "
                          "version with pairs")  # fmt: skip
    base = places.registry.get(places.registry.resolve(settings.policy).base)
    require_positions(base, settings.training.max_length)
    plan = _plan(settings, version.digest, base)
    if known := next((e for e in models.entries() if e.plan == plan), None):
        measure(places, known, where=where, watch=watch)
        return known
    models.check_free(name)
    job = RewardJob(places.registry.ref(base), version_ref(version.digest, places.versions.directory), settings, plan,
                    str(places.root / "scratch" / plan), "", places.settings.report_to)  # fmt: skip

    def work(output: Path) -> None:
        with assembly.reward_tools(where) as tools:
            tools.train(replace(job, output=str(output)), reporting(watch))

    with places.held(f"training reward model {name}"):
        Path(job.scratch).mkdir(parents=True, exist_ok=True)
        made = RewardRecord(name, _published(places, work), base.digest, version.digest, (), plan,
                            settings.numerics.model_dump(mode="json"), settings.training.max_length, now().isoformat())  # fmt: skip
        models.add(made)
        shutil.rmtree(job.scratch, ignore_errors=True)
    measure(places, made, where=where, watch=watch)
    return made


def average_reward_models(
    places: Places, name: str, members: Sequence[str], *, where: Where = "auto", watch: Watch = silent
) -> RewardRecord:
    """The reward model whose weights are the mean of others' (WARM, arXiv 2401.12187), measured on all versions.

    Raises:
        ConfigError: fewer than two, one that does not exist, or the name is taken.
        PolicyError: they sit on several bases, or their adapters differ in shape.
    """
    models = RewardModels(places)
    found = [models.find(each) for each in dict.fromkeys(members)]
    if len(found) < 2:
        raise ConfigError(f"{name}: an average needs two reward models or more, got {len(found)}; name them with --of")
    plan = digest(["average", sorted(e.digest for e in found)])
    if known := next((e for e in models.entries() if e.plan == plan), None):
        return known
    models.check_free(name)
    made = RewardRecord(
        name, _published(places, lambda output: assembly.average_rewards([models.ref(e) for e in found], output)),
        found[0].base, "", tuple(e.digest for e in found), plan, found[0].numerics, min(e.max_length for e in found), now().isoformat(),
    )  # fmt: skip
    models.add(made)
    measure(places, made, where=where, watch=watch)
    return made


def measure(
    places: Places,
    record: RewardRecord,
    *,
    where: Where = "auto",
    watch: Watch = silent,
) -> None:
    """Ask a reward model about the test pairs of all versions, where it was not asked yet, and add that to the ledger.

    What it knows of versions that came before and after its own is its drift.
    """
    known = {m.suite for m in places.ledger.suites(record.digest) if m.numerics == condition_of(record)}
    missing = [e.digest for e in places.versions.entries()
               if f"reward/{e.digest}" not in known and places.versions.find(e.digest).counts["test"]]  # fmt: skip
    if not missing:
        return
    refs = tuple(version_ref(each, places.versions.directory) for each in dict.fromkeys(missing))
    staged = places.objects.stage()
    try:
        job = RewardItemsJob(RewardModels(places).ref(record), refs, NumericsSettings.model_validate(record.numerics),
                             str(staged / "items"))  # fmt: skip
        Path(job.output).mkdir()
        with assembly.reward_tools(where) as tools:
            tools.items(job, reporting(watch))
        places.ledger.record(record.digest, condition_of(record), read_items(Path(job.output)))
    finally:
        places.objects.discard(staged)


def loaded(places: Places, numerics: NumericsSettings) -> Models:
    """Loads a workspace's reward models in this process when one is asked for by name."""
    models = RewardModels(places)

    def find(name: str) -> Reward:
        record = models.find(name)
        return assembly.reward_of(models.ref(record), numerics)

    return find


def pinned(places: Places, settings: RoundSettings) -> tuple[RoundSettings, tuple[PolicyRef, ...]]:
    """Settings whose reward models are named by their digests, so that a plan means the same for ever; and these models.

    Raises:
        ConfigError: there is no such reward model, or the guard is one that is trained on.
    """
    online, models = settings.online, RewardModels(places)
    named = [one.by for one in (*online.rewards, *filter(None, [online.guard])) if one.by.startswith(MODEL)]
    if not online.on or not named:
        return settings, ()

    def exact(by: str) -> str:
        return MODEL + models.find(by.removeprefix(MODEL)).digest if by.startswith(MODEL) else by

    rewards = tuple(one.model_copy(update={"by": exact(one.by)}) for one in online.rewards)
    guard = online.guard and online.guard.model_copy(update={"by": exact(online.guard.by)})
    if guard and guard.by in {one.by for one in rewards}:
        raise ConfigError(f"online.guard: {online.guard and online.guard.by} is {guard.by[:18]}, which is trained on as well, so it "
                          "cannot tell; name another reward model")  # fmt: skip
    exactly = online.model_copy(update={"rewards": rewards, "guard": guard})
    used = {exact(by): models.ref(models.find(by.removeprefix(MODEL))) for by in named}
    return settings.model_copy(update={"online": exactly}), tuple(used[by] for by in sorted(used))


def _plan(settings: RewardModelSettings, version: str, base: PolicyRecord) -> str:
    values: dict[str, Any] = settings.model_dump(mode="json", exclude={"version", "policy"})
    return digest(["reward model", version, base.digest, values])


def _published(places: Places, work: Callable[[Path], None]) -> str:
    staged = places.objects.stage()
    try:
        work(staged)
        return places.objects.publish(staged)
    finally:
        places.objects.discard(staged)
