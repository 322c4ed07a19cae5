"""`workbench bench methods`: streams x methods x seeds, every cell a lineage of real rounds.

One workspace per stream is kept in a folder, so that a bench that was stopped goes on where it was, scores of the base
are computed once, and adding a method or a seed costs that alone. What each lineage measured is a file of its own.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from preference_data.records import digest
from workbench import assembly
from workbench.bench.cells import CHOSEN, QUICK, RESULTS, TRIAL_SEED, WORK, Cell, base, cells, chosen, sizes, workers
from workbench.bench.figures import Figure
from workbench.bench.lineage import Lineage, accuracy, cost, read_out
from workbench.bench.methods_report import markdown
from workbench.bench.methods_verdicts import CONTROL, figures_of
from workbench.bench.stream_versions import Setting, made_of, prepare, select_of
from workbench.bench.streams import Task, stream
from workbench.cluster.ray_tools import RayOptions, cluster
from workbench.cluster.side_by_side import side_by_side
from workbench.config import NumericsSettings, RoundSettings
from workbench.errors import ConfigError
from workbench.policies.lineage import superseded
from workbench.workspace import Workspace

TRAINING = {"learning_rate": 2e-4, "epochs": 2, "batch_size": 8, "accumulation": 1, "rank": 8, "alpha": 16,
            "max_length": 512, "checkpoint_every": 1000}  # fmt: skip
EVALUATION = {"samples": 24, "max_new_tokens": 24, "batch_size": 256}
REJECTING = {"min_gain": 1.0}
"""A gate that promotes nothing: lineages branch from the base side by side."""


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
        self._ws = opened(_copied(root, apart) if apart else root, self._tasks)
        self._numerics = kept_numerics(self._ws)
        self._sizes = QUICK if quick else sizes()
        measured = {**EVALUATION, "suites": chosen("suites")}
        self._conditions = digest([self._sizes, TRAINING, measured, self._numerics.model_dump()])[:16]
        self._require_same_conditions()
        names = prepare(self._ws, self._tasks, Setting(self._sizes, self._numerics, tell))
        self._versions = {name: self._ws.version(name).digest for name in names}

    def lineages(self, cells: Sequence[Cell]) -> list[dict[str, Any]]:
        """What all of them measured, one after the other, or as many at once as the environment asks for."""
        if workers() > 1 and (open_cells := [cell for cell in cells if not self._known(cell)]):
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
        file = self._results / cell.file
        begun = self._read(file, cell)
        lineage = Lineage([self._ws.registry.resolve("base").digest], list(begun.get("rounds", [])))
        for settings in self._rounds(cell, lineage):
            self._ws.evaluate(lineage.policies[-1], settings, versions=list(self._versions))
            part = {**self._kept(cell), "rounds": lineage.rounds}
            file.write_text(json.dumps(part) + "\n", encoding="utf-8")
        settings = self._settings(cell, self._tasks[-1], lineage.policies[-1])
        found = {
            **cell._asdict(),
            **self._kept(cell),
            "tasks": list(self._versions),
            "versions": list(self._versions.values()),
            "guidelines": [task.guideline for task in self._tasks],
            "replaced": self._replaced(),
            **read_out(self._ws, lineage, list(self._versions), settings),
        }
        file.write_text(json.dumps(found) + "\n", encoding="utf-8")
        return found

    def tried(self, method: str) -> dict[str, float]:
        """By trial, how many select pairs of all tasks the last policy has right, as a share; test pairs are not looked at.

        Every method has the same trials and one lineage for each, of a seed that is not measured again.
        """
        file = self._results / f"{self._name}-{method}-trials.json"
        cell = Cell(self._name, method, TRIAL_SEED)
        known = self._read(file, cell) or {**self._kept(cell), "trials": {}}
        for trial in chosen("trials"):
            if trial not in known["trials"]:
                known["trials"][trial] = self._select_accuracy(cell._replace(method=f"{method}+{trial}"))
                file.write_text(json.dumps(known) + "\n", encoding="utf-8")
        return {trial: known["trials"][trial] for trial in chosen("trials")}

    def _select_accuracy(self, cell: Cell) -> float:
        lineage = Lineage([self._ws.registry.resolve("base").digest], [])
        *_, settings = self._rounds(cell, lineage)
        names = [select_of(task.name) for task in self._tasks if task.name not in self._replaced()]
        plain = settings.model_copy(update={"evaluation": settings.evaluation.model_copy(update={"suites": ()})})
        self._ws.evaluate(lineage.policies[-1], plain, versions=names)
        return accuracy(self._ws, lineage.policies[-1], names, plain)

    def keep(self, name: str, text: str) -> None:
        """Write a table beside the lineages' files."""
        (self._results / f"{self._name}-{name}.md").write_text(text, encoding="utf-8")

    def report(self, found: Sequence[Mapping[str, Any]]) -> Path:
        """Write the table of the stream beside the lineages' files, and its figures where matplotlib is installed."""
        figures: list[Path] = []
        if find_spec("matplotlib"):
            figures = import_module("workbench.bench.methods_figures").draw(self._name, found, self._results)
        file = self._results / f"{self._name}.md"
        file.write_text(markdown(self._name, found, [each.name for each in figures]), encoding="utf-8")
        return file

    def _known(self, cell: Cell) -> dict[str, Any] | None:
        known = self._read(self._results / cell.file, cell)
        return known if "hits" in known else None

    def _kept(self, cell: Cell) -> dict[str, str]:
        """What is written beside numbers, so that they are not taken for others."""
        return {"conditions": self._conditions, "made_by": self._made_by(cell)}

    def _made_by(self, cell: Cell) -> str:
        """What a lineage's numbers depend on beside the conditions: all its method sets, the base, the stream and its pairs."""
        settings = RoundSettings.model_validate(cell.settings).model_dump(mode="json", exclude_unset=True)
        origin = self._ws.registry.resolve("base").digest
        return digest([settings, origin, [each._asdict() for each in self._tasks], self._versions])[:16]

    def _read(self, file: Path, cell: Cell) -> dict[str, Any]:
        """What a file says of a cell; nothing where there is none.

        Raises:
            ConfigError: it was measured in another way, or of something else.
        """
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if known and known["conditions"] != self._conditions:
            raise ConfigError(
                f"{file}: measured with other sizes or settings; give another folder in {RESULTS}, or remove the file"
            )
        if known and known.get("made_by") != self._made_by(cell):
            raise ConfigError(
                f"{file}: measured when {cell.method!r}, the stream or its pairs were something else; give another folder in {RESULTS}, "
                "or remove the file"
            )
        return known

    def _rounds(self, cell: Cell, lineage: Lineage) -> Iterator[RoundSettings]:
        """Run round after round; the settings of each, once it has ended."""
        for number, task in enumerate(self._tasks, 1):
            self._tell(f"{cell.stream}: {cell.method}, seed {cell.seed}, round {number} of {len(self._tasks)}")
            yield self._round(cell, task, lineage, number)

    def _replaced(self) -> list[str]:
        return sorted(superseded((task.name, task.update) for task in self._tasks))

    def _round(self, cell: Cell, task: Task, lineage: Lineage, number: int) -> RoundSettings:
        settings = self._settings(cell, task, lineage.policies[-1])
        planned = self._ws.round(self._ws.plan(settings))
        begun_before = any(each.digest == planned.digest for each in self._ws.journal.rounds())
        began = time.perf_counter()
        outcome = planned.run()
        if len(lineage.rounds) < number:
            seconds = None if begun_before else time.perf_counter() - began
            lineage.rounds.append(cost(self._ws, outcome, seconds, epochs=settings.training.epochs))
        lineage.policies.append(outcome.child.digest)
        return settings

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
        if "online" in given and task.guideline:  # what a person would ask for in this round
            given["online"] = {"rewards": [{"by": f"rule:{task.guideline}"}], **given["online"]}
        values = {**given, "parent": parent, "version": task.name, "update": task.update,
                  "replay": {**given.get("replay", {}), "seed": cell.seed},
                  "training": {**TRAINING, **given.get("training", {}), "seed": cell.seed},
                  "numerics": self._numerics.model_dump(), "evaluation": evaluation, "gate": REJECTING}  # fmt: skip
        return RoundSettings.model_validate(values)


def _alone(piece: tuple[str, Cell, bool]) -> str:
    """One lineage in a worker, in a copy of the stream's workspace."""
    asked, cell, quick = piece
    Bench(asked, lambda _: None, quick=quick, apart=Path(cell.file).stem).run(cell)
    return f"{cell.method}, seed {cell.seed}"


def _copied(root: Path, name: str) -> Path:
    """A copy of a workspace beside it; made once, so that a lineage goes on where it was."""
    copy = root.with_name(f"{root.name}.{name}")
    if not copy.exists():
        part = copy.with_name(f"{copy.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(root, part, symlinks=True)
        part.rename(copy)
    return copy


def opened(root: Path, tasks: Sequence[Task]) -> Workspace:
    """The workspace of a stream; made where it is missing.

    Raises:
        ConfigError: it was made of other tasks, files or another base than there are now.
    """
    file, now = root / "bench-made-of.json", made_of(tasks, base())
    if not root.exists():
        root.mkdir(parents=True)
        file.write_text(json.dumps(now), encoding="utf-8")
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if other := [what for what in now if kept.get(what) != now[what]]:
        raise ConfigError(
            f"{root}: made with other {', '.join(other)}, or before this was written down; give another folder in {WORK}, or remove it"
        )
    return Workspace.init(root, base=base())


def kept_numerics(ws: Workspace) -> NumericsSettings:
    """The faster precision, measured once per workspace: lineages go on as they began."""
    file = ws.root / "bench-numerics.json"
    if not file.exists():
        cores = max(1, (os.cpu_count() or 1) // workers())
        file.write_text(assembly.fastest(cores).model_dump_json(), encoding="utf-8")
    return RoundSettings.model_validate({"numerics": json.loads(file.read_text(encoding="utf-8"))}).numerics


def tuned(tell: Callable[[str], None], *, quick: bool) -> dict[str, str]:
    """By method, the best of the trials the environment names, found on the first stream; none where it names none."""
    if not chosen("trials"):
        return {}
    bench = Bench(chosen("streams")[0], tell, quick=quick)
    found = {method: bench.tried(method) for method in chosen("methods") if method != CONTROL}  # which is to do harm
    return {method: max(trials, key=trials.__getitem__) for method, trials in found.items()}


def _part(asked: str) -> Callable[..., list[Figure]]:
    def measure(tell: Callable[[str], None], *, quick: bool) -> list[Figure]:
        name, _ = stream(asked)
        best = tuned(tell, quick=quick)
        bench = Bench(asked, tell, quick=quick)
        plain = cells([name])
        asked_for = [c._replace(method=f"{c.method}+{best[c.method]}") if c.method in best else c for c in plain]
        found = bench.lineages(asked_for)
        if best:
            pairs = zip(plain, found, strict=True)
            found = [{**each, "method": c.method, "trial": best.get(c.method, "")} for c, each in pairs]
        bench.report(found)
        return figures_of(name, found)

    return measure


def _parts() -> dict[str, Callable[..., list[Figure]]]:
    """What measures the streams asked for, by their names.

    Raises:
        ConfigError: two are called the same, and would share a workspace and files.
    """
    asked_for = {asked: stream(asked)[0] for asked in chosen("streams")}
    names = list(asked_for.values())
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{CHOSEN['streams'][0]}: two streams are called {twice!r}; rename a manifest")
    return {name: _part(asked) for asked, name in asked_for.items()}


PARTS = _parts()
