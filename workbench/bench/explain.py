"""`workbench bench explain`: does a round without the pairs said to have turned a version keep it?

A second round is given pairs that contradict what the first one taught. Without the worst of what `workbench explain` finds it
is run again, and without as many pairs drawn at random.
"""

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from preference_data.records import Pair
from preference_data.versions import write_version
from workbench.bench.cells import WORK
from workbench.bench.figures import Figure
from workbench.bench.lineage import prompt_scores
from workbench.bench.methods import REJECTING, TRAINING, kept_numerics, opened
from workbench.bench.stream_versions import Setting, Sizes, prepare
from workbench.bench.streams import STREAMS
from workbench.config import RoundSettings
from workbench.drift.crossed import crossed
from workbench.drift.uncertainty import Floats
from workbench.errors import ConfigError
from workbench.explaining import explain

TASKS = STREAMS["personas"][:2]
OVER_CHANCE = 2.0
"""How many times as often as at random the worst pairs have to be planted ones."""


class Scale(NamedTuple):
    """How much is done: pairs, how many are planted and then left out, and how often as many are at random."""

    sizes: Sizes
    planted: int
    draws: int


FULL, QUICK = Scale(Sizes(210, 100, 400), 40, 3), Scale(Sizes(24, 12, 40), 6, 1)


def measure(tell: Callable[[str], None], *, quick: bool) -> list[Figure]:
    """What was found among the worst, and what leaving them out keeps; a workspace is kept, so that it goes on where it was."""
    return _Experiment(QUICK if quick else FULL, tell, quick=quick).figures()


class _Experiment:
    def __init__(self, scale: Scale, tell: Callable[[str], None], *, quick: bool) -> None:
        work = Path(os.environ.get(WORK) or Path.home() / ".cache" / "continual-alignment" / "bench")
        self._ws = opened(work / f"explain{'-quick' * quick}", TASKS)
        self._scale, self._tell, self._numerics = scale, tell, kept_numerics(self._ws)
        self._taught, self._other = prepare(self._ws, TASKS, Setting(scale.sizes, self._numerics, tell))
        self._pairs = self._contradicting()
        self._parent = self._round(self._taught, "base", "the first round")

    def figures(self) -> list[Figure]:
        """Two rounds, what turned the first version, and rounds without it and without others."""
        child = self._round(self._version("planted", self._pairs), self._parent, "a round with planted pairs")
        self._tell("what turned the first version")
        order = [cause.pair for cause in explain(self._ws, child, self._taught, where="here").causes]
        count = self._scale.planted
        found, chance = _planted(order[:count]), count * _planted(order) / len(order)
        worst = self._known(self._without(order[:count], "without the worst"))
        drawn = [
            self._known(self._without(random.Random(seed).sample(order, count), f"without a draw, {seed + 1}"))
            for seed in range(self._scale.draws)
        ]
        before, after = (self._known(policy).mean() for policy in (self._parent, child))
        regained = crossed([np.array([worst - each for each in drawn])])
        told = (
            f"{regained}; accuracy {before:.3f} before the round, {after:.3f} after it, {worst.mean():.3f} without the worst, "
            f"{', '.join(f'{each.mean():.3f}' for each in drawn)} at random"
        )
        return [
            Figure("planted pairs among the worst, over chance", found / chance, OVER_CHANCE, "at least",
                   note=f"{found} of the {count} worst, {chance:.1f} by chance; {len(order)} pairs"),
            Figure("kept without the worst pairs, less without pairs at random, lower bound", regained.low, 0.0, "at least", told),
        ]  # fmt: skip

    def _contradicting(self) -> list[Pair]:
        """The other task's pairs, and of the taught one's that were not used some turned round."""
        everything = self._ws.version(f"all of {Path(TASKS[0].files[0]).stem}").pairs()
        used = {pair.prompt.key for pair in self._ws.version(self._taught).pairs()}
        spare = sorted((pair for pair in everything if pair.prompt.key not in used), key=lambda pair: pair.key)
        turned = [
            replace(pair, chosen=pair.rejected, rejected=pair.chosen, split="train", slices={"source": "planted"})
            for pair in spare[: self._scale.planted]
        ]
        if len(turned) < self._scale.planted:
            raise ConfigError(
                f"bench explain: {TASKS[0].files[0]} has {len(spare)} pairs beyond the version's, {self._scale.planted} are needed to "
                "plant; give a larger file"
            )
        return [*self._ws.version(self._other).pairs(), *turned]

    def _version(self, name: str, pairs: Sequence[Pair]) -> str:
        """The name of a version of these pairs."""
        if name not in {entry.name for entry in self._ws.version_entries()}:
            made = write_version(pairs, self._ws.versions.directory, rule={"explain": name}, watermark=0, head="")
            self._ws.versions.add(name, made.digest)
        return name

    def _without(self, left_out: Sequence[Pair], name: str) -> str:
        """The policy of a round without some pairs."""
        gone = {pair.key for pair in left_out}
        version = self._version(name, [pair for pair in self._pairs if pair.key not in gone])
        return self._round(version, self._parent, f"a round {name}")

    def _known(self, policy: str) -> Floats:
        """What a policy knows of the first version, by test prompt."""
        return np.array(prompt_scores(self._ws, policy, self._taught, self._settings(self._taught, "base")))

    def _round(self, version: str, parent: str, doing: str) -> str:
        self._tell(doing)
        return self._ws.round(self._ws.plan(self._settings(version, parent))).run(where="here").child.digest

    def _settings(self, version: str, parent: str) -> RoundSettings:
        return RoundSettings.model_validate({
            "method": "plain", "parent": parent, "version": version, "training": TRAINING, "gate": REJECTING,
            "numerics": self._numerics.model_dump(), "evaluation": {"samples": 1, "max_new_tokens": 4, "suites": []},
        })  # fmt: skip


def _planted(pairs: Sequence[Pair]) -> int:
    return sum(pair.slices.get("source") == "planted" for pair in pairs)


PARTS = {"planted": measure}
