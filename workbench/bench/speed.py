"""`workbench bench speed`: training against TRL and LLaMA-Factory on the same pairs, model, batch and precision.

Every side runs in processes of its own, in turns; rates count the time between its optimizer steps only.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from preference_data import reading
from preference_data.freeze import FreezeRule
from preference_data.records import Pair
from preference_data.versions import write_version
from workbench import assembly
from workbench.bench.apart import apart
from workbench.bench.figures import Figure
from workbench.config import NumericsSettings, TrainingSettings
from workbench.errors import ConfigError
from workbench.models.fetch import default_directory, is_fetched
from workbench.tasks import VersionRef
from workbench.workspace import Workspace

DATA = "WORKBENCH_BENCH_PAIRS"
"""Environment variable with the file of pairs; the targets are for harmless-base of hh-rlhf."""
PEER = "WORKBENCH_BENCH_LLAMA_FACTORY"
"""Environment variable with the Python of an environment that has LLaMA-Factory."""
OURS, TRL, TUNED = "workbench", "TRL, its defaults", "TRL, no recomputation, reference precomputed"
FACTORY = "LLaMA-Factory"
SIDES = {OURS: "ours", TRL: "trl-default", TUNED: "trl-tuned", FACTORY: "llama-factory"}
MODULES = {OURS: "speed_ours", TRL: "speed_trl", TUNED: "speed_trl", FACTORY: "speed_llama_factory"}
TRAINING = TrainingSettings(rank=16, alpha=32, batch_size=4, accumulation=1, epochs=1, max_length=1024)


class Scale(NamedTuple):
    """How much is done: pairs trained on, and how often each side is run."""

    pairs: int
    repeats: int


FULL, QUICK = Scale(32, 3), Scale(8, 1)


class Run(NamedTuple):
    """What one process measured.

    Attributes:
        step_s: seconds per optimizer step, the first left out.
        round_s: everything, imports left out: loading, scoring the anchor or computing the reference, one epoch.
        peak_mb: most memory the process held.
        useful: share of the time that its matrix products take alone, 0 where nobody measured it.
        from_blocks: the same with frozen matrices in blocks.
    """

    step_s: float
    round_s: float
    peak_mb: float
    useful: float
    from_blocks: float = 0.0


def measure(tell: Callable[[str], None], *, quick: bool) -> list[Figure]:
    """All figures; `tell` is called with what is being done."""
    scale = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        work = task(Path(folder), scale.pairs)
        sides = [side for side in SIDES if side != FACTORY or os.environ.get(PEER)]
        runs: dict[str, list[Run]] = {side: [] for side in sides}
        for turn in range(scale.repeats):
            for side in sides:
                tell(f"{side}, {turn + 1} of {scale.repeats}")
                runs[side].append(_run(side, work, Path(folder)))
    return _figures(runs, scale, str(work["numerics"]["dtype"]))


def _figures(runs: Mapping[str, Sequence[Run]], scale: Scale, dtype: str) -> list[Figure]:
    step = {side: median(run.step_s for run in each) for side, each in runs.items()}
    peak = {side: median(run.peak_mb for run in each) for side, each in runs.items()}
    rate = {side: TRAINING.batch_size / each for side, each in step.items()}

    def told(*sides: str) -> str:
        how = f"medians of {scale.repeats}, {scale.pairs} pairs, batch {TRAINING.batch_size}, {dtype}"
        return f"{' against '.join(f'{rate[side]:.2f}' for side in sides)} pairs/s; {how}"

    def over(side: str, name: str, target: float) -> Figure:
        if side not in step:
            return Figure(name, None, target, "at least", f"{PEER} is not set")
        return Figure(name, step[side] / step[OURS], target, "at least", told(OURS, side))

    whole = {side: median(run.round_s for run in each) for side, each in runs.items()}
    cold = "a cold round over LLaMA-Factory's, anchor scored"
    useful, blocks = (median(each) for each in zip(*((run.useful, run.from_blocks) for run in runs[OURS]), strict=True))
    return [
        over(TRL, "training pairs/s over TRL's defaults", 6),
        over(TUNED, "training pairs/s over TRL tuned", 4),
        over(FACTORY, "training pairs/s over LLaMA-Factory", 3.5),
        Figure(cold, whole[FACTORY] / whole[OURS] if FACTORY in whole else None, 2.5, "at least",
               f"{whole[OURS]:.0f} against {whole[FACTORY]:.0f} s" if FACTORY in whole else f"{PEER} is not set"),
        Figure("peak memory over TRL tuned", peak[OURS] / peak[TUNED], 0.5,
               note=f"{peak[OURS]:.0f} against {peak[TUNED]:.0f} MB"),
        Figure("useful-FLOP share in training", useful, 0.6, "at least",
               note=f"matrix products of the step at their own measured rate, over the step; {blocks:.2f} if from blocks, too"),
    ]  # fmt: skip


def _run(side: str, work: Mapping[str, Any], folder: Path) -> Run:
    """One side in a process of its own."""
    given, told = folder / "work.json", folder / "told.json"
    given.write_text(json.dumps({**work, "variant": SIDES[side]}), encoding="utf-8")
    python = os.environ[PEER] if side == FACTORY else sys.executable
    script = Path(__file__).with_name(f"{MODULES[side]}.py")
    how = [str(script)] if side == FACTORY else ["-m", f"workbench.bench.{script.stem}"]
    env = {**os.environ, "DISABLE_VERSION_CHECK": "1"}
    return Run(**apart([python, *how, str(given)], told, what=f"speed: {side}", env=env))


def task(folder: Path, count: int) -> dict[str, Any]:
    """The same task for every side, as plain values."""
    ws = Workspace.init(folder / "ws", base=base_folder())
    policy = ws.registry.ref(ws.registry.resolve("base"))
    pairs = _pairs(ws, folder, count)
    version = write_version(pairs, folder / "versions", rule={}, watermark=0, head="")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(_row(pair)) + "\n" for pair in pairs), encoding="utf-8")
    numerics: NumericsSettings = assembly.fastest(2)
    return {
        "policy": policy._asdict(),
        "version": VersionRef(version.digest, str(version.path))._asdict(),
        "rows": str(rows),
        "training": TRAINING.model_dump(),
        "numerics": numerics.model_dump(),
        "folder": str(folder),
    }


def base_folder() -> Path:
    """Where the model of the benches is.

    Raises:
        ConfigError: it was not fetched.
    """
    base = default_directory()
    if not is_fetched(base):
        raise ConfigError("bench: the model is missing; run `workbench model fetch`")
    return base


def first_rows(folder: Path, count: int) -> Path:
    """A file with the first rows of the pairs given.

    Raises:
        ConfigError: none were given.
    """
    if not os.environ.get(DATA):
        raise ConfigError(f"bench: {DATA} is not set; expected a file of preferences, such as "
                          "harmless-base.jsonl.gz of hh-rlhf")  # fmt: skip
    part = folder / "part.jsonl"
    values = (row.value for row in islice(reading.rows(Path(os.environ[DATA])), count))
    part.write_text("".join(json.dumps(value) + "\n" for value in values if isinstance(value, dict)), encoding="utf-8")
    return part


def _pairs(ws: Workspace, folder: Path, count: int) -> list[Pair]:
    """The first pairs of the file, all of them to train on."""
    ws.import_file(first_rows(folder, 8 * count))
    frozen = ws.freeze(rule=FreezeRule(min_pairs=0)).version
    found = [pair for split in ("train", "select", "test") for pair in frozen.pairs(split)]
    return [replace(pair, split="train") for pair in found[:count]]


def _row(pair: Pair) -> dict[str, Any]:
    """A pair in TRL's conversational form."""
    return {
        "prompt": [message._asdict() for message in pair.prompt.messages],
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
    }


PARTS = {"all": measure}
