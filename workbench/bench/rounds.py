"""`workbench bench rounds`: what anchors, added pairs and workers cost, over real rounds of the model of the demo.

A whole round is timed from its plan to its verdict. On Ray the same rounds are compared by the time in which steps
made progress, without the start of cluster and workers.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeVar

from preference_data.freeze import FreezeRule
from preference_data.versions import write_version
from workbench import assembly
from workbench.assembly import Where
from workbench.bench.figures import Figure
from workbench.bench.speed import base_folder, first_rows
from workbench.cluster.ray_tools import RayOptions, cluster, ray_tools
from workbench.config import NumericsSettings, RoundSettings
from workbench.tasks import PolicyRef, Progress, ScoreJob, Tools, VersionRef
from workbench.workspace import Workspace


class Scale(NamedTuple):
    """How much is done: pairs of a round and of the large version, added pairs, and how often each is run."""

    pairs: int
    scored: int
    added: int
    repeats: int


FULL, QUICK = Scale(128, 1000, 10, 2), Scale(24, 24, 4, 1)
LARGE = FULL._replace(pairs=384, repeats=4)
"""Of rounds with more anchors, whose cost does not grow with the pairs, as training does."""
THRICE = FULL._replace(repeats=3)
"""Of rounds on Ray."""
ONLINE = {"steps": 8, "prompts": 4, "max_new_tokens": 32}
OPEN_GATE = {"min_gain": -1, "max_retention_drop": 1, "max_tax": 1, "max_kl_parent": 99, "max_kl_base": 99}
Tell = Callable[[str], None]
Side = TypeVar("Side")


class _World:
    """A workspace with real pairs and a lineage of four policies."""

    def __init__(self, folder: Path, scale: Scale, tell: Tell) -> None:
        self.folder, self.scale, self.tell = folder, scale, tell
        self.ws = Workspace.init(folder / "ws", base=base_folder())
        for name, rows, pairs in (
            ("first", 40, 16),
            ("main", 4 * scale.pairs, scale.pairs),
            ("large", 4 * (scale.scored + scale.added), scale.scored + scale.added),
        ):
            self.ws.import_file(first_rows(folder, rows))
            self.ws.freeze(name=name, rule=FreezeRule(min_pairs=0, max_pairs=pairs))
        self.numerics: NumericsSettings = assembly.fastest(2)
        self.lineage = ["base"]

    def grow(self, policies: int) -> None:
        """Rounds until the lineage has so many."""
        for number in range(len(self.lineage), policies):
            self.tell(f"policy {number} of {policies - 1}")
            self.lineage.append(self.round("first", self.lineage[-1:], seed=number).child)

    def round(self, version: str, anchors: list[str], *, seed: int, where: Where = "here", **more: Any) -> "_Timed":
        """A round from the newest policy, held by equal weights to some; `more` are further settings."""
        settings = RoundSettings.model_validate(
            {
                "method": "plain",
                "parent": self.lineage[-1],
                "version": version,
                "anchors": [{"policy": each, "weight": 1 / len(anchors)} for each in anchors],
                "training": {"seed": seed, "max_length": 1024},
                "numerics": self.numerics.model_dump(),
                "gate": OPEN_GATE,
                **more,
            }
        )
        seen: list[tuple[float, Progress]] = []
        began = time.perf_counter()
        planned = self.ws.round(self.ws.plan(settings))
        outcome = planned.run(where=where, watch=lambda progress: seen.append((time.perf_counter(), progress)))
        return _Timed(outcome.child.digest, time.perf_counter() - began, seen)


class _Timed(NamedTuple):
    """A round: its child, how long it took, and what it told when."""

    child: str
    seconds: float
    seen: list[tuple[float, Progress]]

    def scored(self) -> int:
        """Answers whose log-probability was computed."""
        totals: dict[int, int] = {}
        number = 0
        for _, progress in self.seen:
            if progress.step == "score":
                totals[number] = progress.total
                number += progress.done == progress.total
        return sum(totals.values())

    def worked_s(self) -> float:
        """Time between the first and the last sign of each run of equal steps."""
        spans: list[list[float]] = []
        before = ""
        for at, progress in self.seen:
            if progress.step != before:
                spans.append([at, at])
            spans[-1][1], before = at, progress.step
        return sum(last - first for first, last in spans)


def _in_turns(sides: Sequence[Side], repeats: int) -> Iterator[tuple[int, Side]]:
    """Each side once a turn, the first one last in every other turn: what drifts or is warmed up favours none."""
    for turn in range(repeats):
        for side in sides if turn % 2 == 0 else reversed(sides):
            yield turn, side


def _anchors(world: _World) -> Iterator[Figure]:
    world.grow(4)
    one, four = world.lineage[-1:], world.lineage
    world.tell("a round with one anchor")
    first = world.round("main", one, seed=10)
    world.tell("a round with four anchors, new to the pairs")
    new = world.round("main", four, seed=11)
    runs: dict[int, list[float]] = {1: [], 4: []}
    for turn, anchors in _in_turns((one, four), world.scale.repeats):
        world.tell(f"{len(anchors)} anchors, {turn + 1} of {world.scale.repeats}")
        runs[len(anchors)].append(world.round("main", anchors, seed=20 + turn).seconds)
    seconds = {count: median(each) for count, each in runs.items()}
    yield Figure(
        "a round with 4 anchors over one with 1, all seen before", seconds[4] / seconds[1], 1.05,
        note=f"{seconds[4]:.1f} against {seconds[1]:.1f} s; medians of {world.scale.repeats}, {world.scale.pairs} pairs",
    )  # fmt: skip
    # The first round scored its parent; of the four anchors three are new. Test pairs of each policy are scored too.
    yield Figure(
        "scoring passes of a round with 3 more anchors, new to the pairs", new.scored() / first.scored(), 3,
        note=f"{new.scored()} answers against {first.scored()} of one anchor; "
        f"{new.seconds - seconds[1]:.1f} s more than where all was seen",
    )  # fmt: skip


def _online(world: _World) -> Iterator[Figure]:
    """Rounds on fresh answers: each step asks every anchor about them."""
    world.grow(4)
    online = {"objective": "grpo", "rewards": [{"by": "rule:own-words"}], **ONLINE}
    runs: dict[int, list[float]] = {1: [], 4: []}
    for turn in range(1 + world.scale.repeats):
        for anchors in (world.lineage[-1:], world.lineage):
            world.tell(f"fresh answers, {len(anchors)} anchors, {turn + 1} of {1 + world.scale.repeats}")
            runs[len(anchors)].append(world.round("main", anchors, seed=30 + turn, online=online).seconds)
    one, four = (median(each[1:]) for each in runs.values())  # the first of each scores what later ones know
    yield Figure(
        "a round on fresh answers with 4 anchors over one with 1", four / one, 1.3,
        note=f"{four:.1f} against {one:.1f} s; medians of {world.scale.repeats}; {ONLINE['steps']} steps of {ONLINE['prompts']} prompts x 4 "
        f"answers of at most {ONLINE['max_new_tokens']} tokens, exact KL at every token",
    )  # fmt: skip


def _ray(world: _World) -> Iterator[Figure]:
    sides: Sequence[Where] = ("here", "ray")
    times: dict[Where, list[float]] = {where: [] for where in sides}
    world.tell("a round that is not counted")  # it scores and measures the base, which later ones know
    world.round("main", world.lineage[-1:], seed=99)
    for turn, where in _in_turns(sides, world.scale.repeats):
        world.tell(f"a round {where}, {turn + 1} of {world.scale.repeats}")
        seed = 100 + turn + 50 * (where == "ray")
        times[where].append(world.round("main", world.lineage[-1:], seed=seed, where=where).worked_s())
    seconds = {where: median(each) for where, each in times.items()}
    yield Figure(
        "a round on Ray over one in this process, work only", seconds["ray"] / seconds["here"], 1.05,
        note=f"{seconds['ray']:.1f} against {seconds['here']:.1f} s; medians of {world.scale.repeats}, equal threads",
    )  # fmt: skip


def _added(world: _World) -> Iterator[Figure]:
    scale = world.scale
    every = [pair for split in ("train", "select", "test") for pair in world.ws.version("large").pairs(split)]
    pairs = [replace(pair, split="train") for pair in every]
    counts: list[int] = []
    for count in (len(pairs) - scale.added, len(pairs)):
        world.tell(f"{count} pairs scored")
        version = write_version(pairs[:count], world.folder / "versions", rule={}, watermark=0, head="")
        job = _job(world, VersionRef(version.digest, str(version.path)), "added", world.numerics)
        told: list[int] = [0]
        assembly.IN_PROCESS.score(job, lambda progress, told=told: told.append(progress.total) or False)
        counts.append(told[-1])
    yield Figure(
        f"pairs scored after adding {scale.added} to {len(pairs) - scale.added}", counts[1] / 2, scale.added,
        note=f"{counts[1]} answers; before: {counts[0]}",
    )  # fmt: skip


def _workers(world: _World) -> Iterator[Figure]:
    """One worker with one thread, then two; each scores the same pairs, once before the clock runs."""
    version = world.ws.version("main")
    reference = VersionRef(version.digest, str(version.path))
    pairs = len(list(version.pairs("train")))
    alone = world.numerics.model_copy(update={"threads": 1})
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with _on_ray() as tools:
        for turn in range(1 + world.scale.repeats):
            for workers, each in seconds.items():
                world.tell(f"scoring by {workers}, {turn + 1} of {1 + world.scale.repeats}")
                job = _job(world, reference, f"by-{workers}-{turn}", alone)
                began = time.perf_counter()
                tools(workers, pairs).score(job, lambda _: False)
                each.append(time.perf_counter() - began)
    one, two = (median(each[1:]) for each in seconds.values())
    yield Figure(
        "two 1-thread scoring workers over one", one / two, 1.5, "at least",
        note=f"{one:.1f} against {two:.1f} s; medians of {world.scale.repeats}",
    )  # fmt: skip


@contextmanager
def _on_ray() -> Iterator[Callable[[int, int], Tools]]:
    """Tools on a cluster of this machine, for so many workers and pairs."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with cluster(RayOptions()):
        yield lambda workers, pairs: ray_tools(
            assembly.IN_PROCESS,
            RayOptions(pairs_per_worker=pairs + 1 if workers == 1 else pairs // workers),
            assembly.writer,
            assembly.missing,
        )


def _job(world: _World, version: VersionRef, name: str, numerics: NumericsSettings) -> ScoreJob:
    output = world.folder / "scores" / name
    output.mkdir(parents=True, exist_ok=True)
    policy: PolicyRef = world.ws.registry.ref(world.ws.registry.resolve("base"))
    return ScoreJob(
        policy=policy,
        version=version,
        splits=("train",),
        numerics=numerics,
        max_length=1024,
        batch_size=16,
        cache=f"sqlite:///{world.folder / f'{name}.db'}",
        output=str(output),
    )


def _part(measured: Callable[[_World], Iterator[Figure]], full: Scale) -> Callable[..., list[Figure]]:
    """A part of the bench in a world of its own."""

    def run(tell: Tell, *, quick: bool) -> list[Figure]:
        with tempfile.TemporaryDirectory() as folder:
            return list(measured(_World(Path(folder), QUICK if quick else full, tell)))

    return run


PARTS = {
    "anchors": _part(_anchors, LARGE),
    "online": _part(_online, FULL),
    "Ray": _part(_ray, THRICE),
    "added": _part(_added, FULL),
    "workers": _part(_workers, FULL),
}
