"""`workbench bench methods`: streams x methods x seeds, every cell a lineage of real rounds.

One workspace per stream is kept in a folder, so that a bench that was stopped goes on where it was, scores of the base
are computed once, and adding a method or a seed costs that alone. What each lineage measured is a file of its own.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from preference_data.records import digest
from workbench import assembly
from workbench.bench.figures import Figure
from workbench.bench.lineage import Lineage, read_out
from workbench.bench.methods_report import figures_of, markdown
from workbench.bench.speed import base_folder
from workbench.bench.streams import STREAMS, Setting, Sizes, Task, prepare
from workbench.cli.settings import assign
from workbench.config import METHODS, RoundSettings
from workbench.errors import ConfigError
from workbench.workspace import Workspace

CHOSEN = {
    "streams": ("WORKBENCH_BENCH_STREAMS", "personas,guidelines,hh"),
    "methods": ("WORKBENCH_BENCH_METHODS", "plain,replay,base,base-replay,mix,mix-replay,retrain,average-replay"),
    "seeds": ("WORKBENCH_BENCH_SEEDS", "0,1,2"),
    "suites": ("WORKBENCH_BENCH_SUITES", "choice,text"),
}
"""Environment variables that choose, separated by commas, and what is chosen without them."""
WORK, RESULTS, SIZES = "WORKBENCH_BENCH_WORK", "WORKBENCH_BENCH_RESULTS", "WORKBENCH_BENCH_SIZES"
"""Folders of the workspaces, and of one JSON file per lineage (below the former where it is not set); most training,
select and test pairs of a task, such as 256,100,450."""

FULL, QUICK = Sizes(256, 100, 450), Sizes(12, 8, 20)
TRAINING = {"learning_rate": 2e-4, "epochs": 2, "batch_size": 4, "accumulation": 1, "rank": 8, "alpha": 16,
            "max_length": 512, "checkpoint_every": 1000}  # fmt: skip
EVALUATION = {"samples": 24, "max_new_tokens": 24, "batch_size": 64}
REJECTING = {"min_gain": 1.0}
"""A gate that promotes nothing: lineages branch from the base side by side."""


class Cell(NamedTuple):
    """One lineage: a method and a seed on a stream.

    Attributes:
        method: a name, with settings over it after plus signs: `replay+replay.share=0.5+objective.beta=0.3`.
    """

    stream: str
    method: str
    seed: int

    @property
    def file(self) -> str:
        """Name of its results."""
        return f"{self.stream}-{self.method}-{self.seed}.json"

    @property
    def settings(self) -> dict[str, Any]:
        """What the method sets."""
        name, *changes = self.method.split("+")
        values: dict[str, Any] = {"method": name}
        for each in changes:
            assign(values, each)
        return values


def chosen(what: str) -> list[str]:
    """What the environment asks for."""
    variable, default = CHOSEN[what]
    return [each.strip() for each in os.environ.get(variable, default).split(",") if each.strip()]


def cells(streams: Sequence[str]) -> list[Cell]:
    """All lineages asked for, seed by seed, so that a bench that is stopped has whole comparisons.

    Raises:
        ConfigError: a stream, method or seed is unknown.
    """
    known: dict[str, Mapping[str, Any]] = {"streams": STREAMS, "methods": METHODS}
    for what, names in known.items():
        if unknown := [each for each in chosen(what) if each.split("+")[0] not in names]:
            raise ConfigError(f"{CHOSEN[what][0]}: unknown {unknown[0]!r}; known: {', '.join(names)}")
    try:
        seeds = [int(seed) for seed in chosen("seeds")]
    except ValueError as error:
        raise ConfigError(f"{CHOSEN['seeds'][0]}: {error}; expected numbers, such as 0,1,2") from error
    return [Cell(stream, method, seed) for stream in streams for seed in seeds for method in chosen("methods")]


class Bench:
    """Lineages of one stream in a workspace of their own.

    Args:
        stream: its name.
        tell: called with what is being done.
        quick: a few pairs, to see that it runs.
    """

    def __init__(self, stream: str, tell: Callable[[str], None], *, quick: bool) -> None:
        self._name, self._tasks, self._tell = stream, STREAMS[stream], tell
        work = Path(os.environ.get(WORK) or Path.home() / ".cache" / "continual-alignment" / "bench")
        self._results = Path(os.environ.get(RESULTS) or work / "results") / ("quick" if quick else "")
        self._results.mkdir(parents=True, exist_ok=True)
        self._ws = Workspace.init(work / f"{stream}{'-quick' * quick}", base=base_folder())
        self._numerics = _kept_numerics(self._ws)
        self._sizes = QUICK if quick else _sizes()
        measured = {**EVALUATION, "suites": chosen("suites")}
        self._conditions = digest([self._sizes, TRAINING, measured, self._numerics.model_dump()])[:16]
        self._require_same_conditions()
        self._versions: list[str] = []

    def run(self, cell: Cell) -> dict[str, Any]:
        """What a lineage measured; from its file where it is whole."""
        file = self._results / cell.file
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if known and known["conditions"] != self._conditions:
            raise ConfigError(
                f"{file}: measured with other sizes or settings; give another folder in {RESULTS}, or remove the file"
            )
        if "hits" in known:
            return known
        if not self._versions:
            self._versions = prepare(self._ws, self._tasks, Setting(self._sizes, self._numerics, self._tell))
        lineage = Lineage([self._ws.registry.resolve("base").digest], list(known.get("rounds", [])))
        for number, task in enumerate(self._tasks, 1):
            self._tell(f"{cell.stream}: {cell.method}, seed {cell.seed}, round {number} of {len(self._tasks)}")
            self._round(cell, task, lineage, number)
            part = {"conditions": self._conditions, "rounds": lineage.rounds}
            file.write_text(json.dumps(part) + "\n", encoding="utf-8")
        found = read_out(self._ws, lineage, self._versions, self._settings(cell, self._tasks[-1], lineage.policies[-1]))
        found = {**cell._asdict(), "conditions": self._conditions, "tasks": self._versions, **found}
        file.write_text(json.dumps(found) + "\n", encoding="utf-8")
        return found

    def report(self, found: Sequence[Mapping[str, Any]]) -> Path:
        """Write the table of the stream beside the lineages' files."""
        file = self._results / f"{self._name}.md"
        file.write_text(markdown(self._name, found), encoding="utf-8")
        return file

    def _round(self, cell: Cell, task: Task, lineage: Lineage, number: int) -> None:
        """One round, and the child's numbers on every task, seen or not."""
        settings = self._settings(cell, task, lineage.policies[-1])
        planned = self._ws.round(self._ws.plan(settings))
        begun_before = any(each.digest == planned.digest for each in self._ws.journal.rounds())
        began = time.perf_counter()
        outcome = planned.run(watch=lineage.watch)
        if len(lineage.rounds) < number:
            seconds = None if begun_before else time.perf_counter() - began
            lineage.rounds.append(lineage.cost(self._ws, outcome, seconds))
        lineage.policies.append(outcome.child.digest)
        self._ws.evaluate(outcome.child.digest, settings, versions=self._versions)

    def _require_same_conditions(self) -> None:
        """A workspace has the versions of one size, measured in one way."""
        file = self._ws.root / "bench-conditions"
        if not file.exists():
            file.write_text(self._conditions, encoding="utf-8")
        if file.read_text(encoding="utf-8") != self._conditions:
            raise ConfigError(
                f"{self._ws.root}: made with other sizes or settings; give another folder in {WORK}, or remove it"
            )

    def _settings(self, cell: Cell, task: Task, parent: str) -> RoundSettings:
        # Suites cost as much as a task's test pairs; what the stream cost in the end is asked.
        suites = chosen("suites") if task == self._tasks[-1] else []
        guidelines = [each.guideline for each in self._tasks if each.guideline]
        evaluation = {**EVALUATION, "suites": suites, "guidelines": guidelines}
        given = cell.settings
        values = {**given, "parent": parent, "version": task.name, "update": task.update,
                  "replay": {**given.get("replay", {}), "seed": cell.seed},
                  "training": {**TRAINING, **given.get("training", {}), "seed": cell.seed},
                  "numerics": self._numerics.model_dump(), "evaluation": evaluation, "gate": REJECTING}  # fmt: skip
        return RoundSettings.model_validate(values)


def _sizes() -> Sizes:
    given = os.environ.get(SIZES)
    if not given:
        return FULL
    try:
        return Sizes(*(int(each) for each in given.split(",")))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{SIZES}: got {given!r}, expected three numbers, such as 256,100,450") from error


def _kept_numerics(ws: Workspace) -> Any:
    """The faster precision, measured once per workspace: lineages go on as they began."""
    file = ws.root / "bench-numerics.json"
    if not file.exists():
        file.write_text(assembly.fastest(os.cpu_count() or 1).model_dump_json(), encoding="utf-8")
    return RoundSettings.model_validate({"numerics": json.loads(file.read_text(encoding="utf-8"))}).numerics


def _part(stream: str) -> Callable[..., list[Figure]]:
    def measure(tell: Callable[[str], None], *, quick: bool) -> list[Figure]:
        if stream not in chosen("streams"):
            return []
        bench = Bench(stream, tell, quick=quick)
        found = [bench.run(cell) for cell in cells([stream])]
        bench.report(found)
        return figures_of(stream, found)

    return measure


PARTS = {stream: _part(stream) for stream in STREAMS}
