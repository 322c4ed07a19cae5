"""The reward models of a workspace, and what each knows of every version: named in a list that only grows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from preference_data.line_file import append_line, read_lines
from preference_data.reading import plain_name
from preference_data.records import digest
from workbench.drift.metrics import accuracy, hits, series
from workbench.drift.uncertainty import Estimate, mean
from workbench.errors import ConfigError
from workbench.places import Places
from workbench.tasks import Item, PolicyRef

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
        return [RewardRecord(**{**line, "members": tuple(line["members"])}) for line in read_lines(self._file)]

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
        append_line(self._file, record._asdict())
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


def measured(places: Places, record: RewardRecord) -> dict[str, Measured]:
    """What is known of a reward model, by version digest, oldest version first."""
    found: dict[str, Measured] = {}
    for entry in places.versions.entries():
        items = places.ledger.items(record.digest, f"reward/{entry.digest}", "margin", condition_of(record))
        if items:
            found[entry.digest] = _of(items)
    return found


def condition_of(record: RewardRecord) -> str:
    """Under what a reward model is measured."""
    how = [record.numerics[name] for name in ("dtype", "base", "device")]
    return digest(["reward", MEASURED, *how, record.max_length])[:16]


def _of(items: Sequence[Item]) -> Measured:
    accurate, sure = _accurate_and_sure(items)
    slices = sorted({(name, value) for item in items for name, value in item.slices.items()})
    parts = {f"{name}={value}": [i for i in items if i.slices.get(name) == value] for name, value in slices}
    return Measured(accurate, sure, {each: _accurate_and_sure(part) for each, part in parts.items()})


def _accurate_and_sure(items: Sequence[Item]) -> tuple[Estimate, Estimate]:
    ahead = series(items)
    sure = 1 / (1 + np.exp(-np.abs(ahead.values)))
    return accuracy(ahead), mean(sure - hits(ahead).values, ahead.groups)
