"""The reward models of a workspace: trained, averaged, measured on every version, and named in a list that only grows."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from preference_data.reading import plain_name
from preference_data.records import digest, now
from workbench import assembly
from workbench.assembly import Where
from workbench.config import MODEL, NumericsSettings, RewardModelSettings, RoundSettings
from workbench.drift.metrics import accuracy, hits, series
from workbench.drift.uncertainty import Estimate, mean
from workbench.errors import ConfigError
from workbench.items import read_items
from workbench.places import Places, Watch, silent
from workbench.policies.records import PolicyRecord
from workbench.reward_tasks import RewardItemsJob, RewardJob
from workbench.rewards import Models, Reward
from workbench.rounds.planning import version_ref
from workbench.tasks import Item, PolicyRef, reporting

FILE = "reward_models.jsonl"
LATEST, SHORTEST = "latest", 4
MEASURED = 1
"""Grows when reward models are asked otherwise, so that numbers of both ways never meet."""


class RewardRecord(NamedTuple):
    """One reward model.

    Attributes:
        digest: object with its adapter and head.
        base: digest of the base it sits on.
        version: digest of the version it was trained on; empty for an average.
        members: digests of those it is the average of.
        plan: identity of its training.
        numerics: precision it was trained in, and is measured in.
        max_length: tokens it reads at most.
        at: UTC, ISO 8601.
    """

    name: str
    digest: str
    base: str
    version: str
    members: tuple[str, ...]
    plan: str
    numerics: dict[str, Any]
    max_length: int
    at: str


class Measured(NamedTuple):
    """What a reward model knows of a version's test pairs.

    Attributes:
        accuracy: share of pairs whose chosen answer has the higher reward.
        overconfident: how much surer it is than right: mean sigma(|difference|) minus accuracy; below zero it is too unsure.
        slices: accuracy and overconfidence by slice, such as `language=de`.
    """

    accuracy: Estimate
    overconfident: Estimate
    slices: dict[str, tuple[Estimate, Estimate]]


class RewardModels:
    """The list of a workspace."""

    def __init__(self, places: Places) -> None:
        """Read a workspace."""
        self._places = places
        self._file = places.root / FILE

    def entries(self) -> list[RewardRecord]:
        """All of them, oldest first."""
        if not self._file.exists():
            return []
        lines = map(json.loads, self._file.read_text(encoding="utf-8").splitlines())
        return [RewardRecord(**{**line, "members": tuple(line["members"])}) for line in lines]

    def find(self, name: str) -> RewardRecord:
        """One by name, digest, prefix of a digest, or `latest`.

        Raises:
            ConfigError: nothing or several answer to it; lists what exists.
        """
        known = self.entries()
        if name == LATEST and known:
            return known[-1]
        found = {e.digest: e for e in known if name == e.name or (len(name) >= SHORTEST and e.digest.startswith(name))}
        if len(found) != 1:
            listed = ", ".join(e.name for e in known) or "none; train one with `workbench rewards train`"
            raise ConfigError(f"reward model {name!r}: {len(found)} answer to it; there are: {listed}")
        return next(iter(found.values()))

    def add(self, record: RewardRecord) -> RewardRecord:
        """Name one.

        Raises:
            ConfigError: the name is taken.
        """
        self.check_free(record.name)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record._asdict()) + "\n")
        return record

    def check_free(self, name: str) -> None:
        """Refuse a name before work is done for it.

        Raises:
            ConfigError: it is taken, or cannot be one.
        """
        if name in {e.name for e in self.entries()} | {LATEST, ""} or plain_name(Path(name)) != name:
            raise ConfigError(
                f"reward model {name!r}: the name is taken or cannot be one; choose another of letters, digits and -"
            )

    def ref(self, record: RewardRecord) -> PolicyRef:
        """What jobs are told of one."""
        base = self._places.registry.get(record.base)
        folder = str(self._places.objects.path(record.digest))
        return PolicyRef(record.digest, "adapter", folder, base.digest, base.path, base.tokenizer)


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
        ConfigError: the name is taken.
        VersionError, PolicyError: there is no such version or policy.
    """
    models, version = RewardModels(places), places.versions.find(settings.version)
    base = places.registry.get(places.registry.resolve(settings.policy).base)
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
    known = {m.suite for m in places.ledger.suites(record.digest) if m.numerics == _condition(record)}
    missing = [e.digest for e in places.versions.entries() if f"reward/{e.digest}" not in known]
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
        places.ledger.record(record.digest, _condition(record), read_items(Path(job.output)))
    finally:
        places.objects.discard(staged)


def measured(places: Places, record: RewardRecord) -> dict[str, Measured]:
    """What is known of a reward model, by version digest, oldest version first."""
    found: dict[str, Measured] = {}
    for entry in places.versions.entries():
        items = places.ledger.items(record.digest, f"reward/{entry.digest}", "margin", _condition(record))
        if items:
            found[entry.digest] = _of(items)
    return found


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


def _of(items: Sequence[Item]) -> Measured:
    accurate, sure = _accurate_and_sure(items)
    slices = sorted({(name, value) for item in items for name, value in item.slices.items()})
    parts = {f"{name}={value}": [i for i in items if i.slices.get(name) == value] for name, value in slices}
    return Measured(accurate, sure, {each: _accurate_and_sure(part) for each, part in parts.items()})


def _accurate_and_sure(items: Sequence[Item]) -> tuple[Estimate, Estimate]:
    ahead = series(items)
    sure = 1 / (1 + np.exp(-np.abs(ahead.values)))
    return accuracy(ahead), mean(sure - hits(ahead).values, ahead.groups)


def _plan(settings: RewardModelSettings, version: str, base: PolicyRecord) -> str:
    values: dict[str, Any] = settings.model_dump(mode="json", exclude={"version", "policy"})
    return digest(["reward model", version, base.digest, values])


def _condition(record: RewardRecord) -> str:
    how = [record.numerics[name] for name in ("dtype", "base", "device")]
    return digest(["reward", MEASURED, *how, record.max_length])[:16]


def _published(places: Places, work: Callable[[Path], None]) -> str:
    staged = places.objects.stage()
    try:
        work(staged)
        return places.objects.publish(staged)
    finally:
        places.objects.discard(staged)
