"""`workbench bench methods`: streams x methods x seeds, every cell a lineage of real rounds.

One workspace per stream is kept in a folder, so that a bench that was stopped goes on where it was, scores of the base
are computed once, and adding a method or a seed costs that alone. What each lineage measured is a file of its own.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from preference_data.records import digest
from workbench import assembly
from workbench.bench.figures import Figure
from workbench.bench.lineage import Lineage, read_out
from workbench.bench.methods_report import markdown
from workbench.bench.methods_verdicts import figures_of
from workbench.bench.speed import base_folder
from workbench.bench.stream_versions import Setting, Sizes, prepare
from workbench.bench.streams import Task, stream
from workbench.cli.settings import assign
from workbench.cluster.ray_tools import RayOptions, cluster
from workbench.cluster.side_by_side import side_by_side
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
BASE = "WORKBENCH_BENCH_BASE"
"""Folder of the model all lineages start from; the model that `workbench model fetch` fetches without it."""
WORKERS = "WORKBENCH_BENCH_WORKERS"
"""How many lineages run at once, on Ray; 1 without it, in this process. The folders have to be seen by all workers."""

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
        ConfigError: a method or seed is unknown.
    """
    if unknown := [each for each in chosen("methods") if each.split("+")[0] not in METHODS]:
        raise ConfigError(f"{CHOSEN['methods'][0]}: unknown {unknown[0]!r}; known: {', '.join(METHODS)}")
    try:
        seeds = [int(seed) for seed in chosen("seeds")]
    except ValueError as error:
        raise ConfigError(f"{CHOSEN['seeds'][0]}: {error}; expected numbers, such as 0,1,2") from error
    return [Cell(stream, method, seed) for stream in streams for seed in seeds for method in chosen("methods")]


class Bench:
    """Lineages of one stream in a workspace of their own.

    Args:
        asked: the stream's name, or the path of its manifest.
        tell: called with what is being done.
        quick: a few pairs, to see that it runs.
        apart: name of a copy of the workspace, for lineages that run side by side; empty for the workspace itself.
    """

    def __init__(self, asked: str, tell: Callable[[str], None], *, quick: bool, apart: str = "") -> None:
        self._name, self._tasks = stream(asked)
        self._asked, self._tell, self._quick = asked, tell, quick
        work = Path(os.environ.get(WORK) or Path.home() / ".cache" / "continual-alignment" / "bench")
        self._results = Path(os.environ.get(RESULTS) or work / "results") / ("quick" if quick else "")
        self._results.mkdir(parents=True, exist_ok=True)
        root = work / f"{self._name}{'-quick' * quick}"
        self._ws = Workspace.init(_copied(root, apart) if apart else root, base=_base())
        self._numerics = _kept_numerics(self._ws)
        self._sizes = QUICK if quick else _sizes()
        measured = {**EVALUATION, "suites": chosen("suites")}
        self._conditions = digest([self._sizes, TRAINING, measured, self._numerics.model_dump()])[:16]
        self._require_same_conditions()
        self._versions: list[str] = []

    def lineages(self, cells: Sequence[Cell]) -> list[dict[str, Any]]:
        """What all of them measured, one after the other, or as many at once as the environment asks for."""
        if _workers() > 1 and (open_cells := [cell for cell in cells if not self._known(cell)]):
            self._prepare()
            environment = {k: v for k, v in os.environ.items() if k.startswith("WORKBENCH_")}
            pieces = [(self._asked, cell, self._quick) for cell in open_cells]
            with cluster(RayOptions(address=os.environ.get("RAY_ADDRESS"))):
                cpus = self._numerics.threads
                for done, name in enumerate(side_by_side(_alone, pieces, cpus=cpus, environment=environment), 1):
                    self._tell(f"{self._name}: {done} of {len(pieces)} lineages measured, the last one {name}")
        return [self.run(cell) for cell in cells]

    def run(self, cell: Cell) -> dict[str, Any]:
        """What a lineage measured; from its file where it is whole."""
        if known := self._known(cell):
            return known
        self._prepare()
        file = self._results / cell.file
        begun = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        lineage = Lineage([self._ws.registry.resolve("base").digest], list(begun.get("rounds", [])))
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
        """Write the table of the stream beside the lineages' files, and its figures where matplotlib is installed."""
        figures: list[Path] = []
        if find_spec("matplotlib"):
            figures = import_module("workbench.bench.methods_figures").draw(self._name, found, self._results)
        file = self._results / f"{self._name}.md"
        file.write_text(markdown(self._name, found, [each.name for each in figures]), encoding="utf-8")
        return file

    def _known(self, cell: Cell) -> dict[str, Any] | None:
        file = self._results / cell.file
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if known and known["conditions"] != self._conditions:
            raise ConfigError(
                f"{file}: measured with other sizes or settings; give another folder in {RESULTS}, or remove the file"
            )
        return known if "hits" in known else None

    def _prepare(self) -> None:
        if not self._versions:
            self._versions = prepare(self._ws, self._tasks, Setting(self._sizes, self._numerics, self._tell))

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


def _base() -> Path:
    given = os.environ.get(BASE)
    return Path(given) if given else base_folder()


def _sizes() -> Sizes:
    given = os.environ.get(SIZES)
    if not given:
        return FULL
    try:
        return Sizes(*(int(each) for each in given.split(",")))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{SIZES}: got {given!r}, expected three numbers, such as 256,100,450") from error


def _workers() -> int:
    given = os.environ.get(WORKERS, "1")
    if not given.isdecimal() or given == "0":
        raise ConfigError(f"{WORKERS}: got {given!r}, expected how many lineages run at once, such as 4")
    return int(given)


def _alone(piece: tuple[str, Cell, bool]) -> str:
    """One lineage in a worker, in a copy of the stream's workspace."""
    asked, cell, quick = piece
    Bench(asked, lambda _: None, quick=quick, apart=Path(cell.file).stem).run(cell)
    return f"{cell.method}, seed {cell.seed}"


def _copied(root: Path, name: str) -> Path:
    """A copy of a workspace beside it; made once, so that a lineage goes on where it was."""
    copy = root.with_name(f"{root.name}.{name}")
    if not copy.exists():
        part = copy.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(root, part, symlinks=True)
        part.rename(copy)
    return copy


def _kept_numerics(ws: Workspace) -> Any:
    """The faster precision, measured once per workspace: lineages go on as they began."""
    file = ws.root / "bench-numerics.json"
    if not file.exists():
        cores = max(1, (os.cpu_count() or 1) // _workers())
        file.write_text(assembly.fastest(cores).model_dump_json(), encoding="utf-8")
    return RoundSettings.model_validate({"numerics": json.loads(file.read_text(encoding="utf-8"))}).numerics


def _part(asked: str) -> Callable[..., list[Figure]]:
    def measure(tell: Callable[[str], None], *, quick: bool) -> list[Figure]:
        name, _ = stream(asked)
        bench = Bench(asked, tell, quick=quick)
        found = bench.lineages(cells([name]))
        bench.report(found)
        return figures_of(name, found)

    return measure


PARTS = {stream(asked)[0]: _part(asked) for asked in chosen("streams")}
