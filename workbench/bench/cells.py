"""Which lineages `workbench bench methods` is asked for: streams, methods, seeds, trials, and where they are kept."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench.bench.speed import base_folder
from workbench.bench.stream_versions import Sizes
from workbench.cli.settings import assign
from workbench.config import METHODS
from workbench.errors import ConfigError

CHOSEN = {
    "streams": ("WORKBENCH_BENCH_STREAMS", "personas,guidelines,hh"),
    "methods": ("WORKBENCH_BENCH_METHODS", "plain,equal-replay,recommended,retrain,mix-replay,lifealign"),
    "seeds": ("WORKBENCH_BENCH_SEEDS", "0,1,2"),
    "suites": ("WORKBENCH_BENCH_SUITES", "choice,text"),
    "trials": ("WORKBENCH_BENCH_TRIALS", ""),
}
"""Environment variables that choose, separated by commas, and what is chosen without them."""
WORK, RESULTS, SIZES = "WORKBENCH_BENCH_WORK", "WORKBENCH_BENCH_RESULTS", "WORKBENCH_BENCH_SIZES"
"""Folders of the workspaces, and of one JSON file per lineage (below the former where it is not set); most training,
select and test pairs of a task, such as 256,100,400."""
TRIAL_SEED = 1000
"""Of lineages that settings are chosen by."""
BASE = "WORKBENCH_BENCH_BASE"
"""Folder of the model all lineages start from; the model that `workbench model fetch` fetches without it."""
WORKERS = "WORKBENCH_BENCH_WORKERS"
"""How many lineages run at once, on Ray; 1 without it, in this process. The folders have to be seen by all workers."""

FULL, QUICK = Sizes(256, 100, 400), Sizes(12, 8, 20)


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


def base() -> Path:
    """Folder of the model all lineages start from."""
    given = os.environ.get(BASE)
    return Path(given) if given else base_folder()


def sizes() -> Sizes:
    """Most pairs of a task.

    Raises:
        ConfigError: the environment says something else than three numbers.
    """
    given = os.environ.get(SIZES)
    if not given:
        return FULL
    try:
        return Sizes(*(int(each) for each in given.split(",")))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{SIZES}: got {given!r}, expected three numbers, such as 256,100,400") from error


def workers() -> int:
    """How many lineages run at once.

    Raises:
        ConfigError: the environment says something else than a number from 1.
    """
    given = os.environ.get(WORKERS, "1")
    if not given.isdecimal() or given == "0":
        raise ConfigError(f"{WORKERS}: got {given!r}, expected how many lineages run at once, such as 4")
    return int(given)
