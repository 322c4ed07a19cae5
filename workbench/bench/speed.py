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
from statistics import mean, median
from typing import Any, NamedTuple

import typer

from preference_data import reading
from preference_data.freeze import FreezeRule
from preference_data.records import Pair
from preference_data.versions import load_version, write_version
from workbench import assembly
from workbench.bench.apart import apart
from workbench.bench.figures import Figure
from workbench.config import NumericsSettings, TrainingSettings
from workbench.errors import ConfigError
from workbench.models.fetch import default_directory, is_fetched
from workbench.models.load import load_tokenizer
from workbench.models.tokens import encode_pair
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
PEERS = {TRL: ("TRL's defaults", 6), TUNED: ("TRL tuned", 4), FACTORY: ("LLaMA-Factory", 3.5)}
"""What figures call them, and how many times as fast we are to train at least."""
COLD = 2.5
"""The same of a cold round."""
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


class Rates(NamedTuple):
    """What one side does, medians of its runs.

    Attributes:
        pairs_per_s: trained on.
        tokens_per_s: of their prompts and both answers, each counted once, padding not at all.
        peak_mb: most memory held.
        round_s: a cold round.
    """

    pairs_per_s: float
    tokens_per_s: float
    peak_mb: float
    round_s: float


def measure(tell: Callable[[str], None], *, quick: bool) -> list[Figure]:
    """All figures; `tell` is called with what is being done. Prints what each side does as a Markdown table."""
    scale = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        work = task(Path(folder), scale.pairs)
        tokens = tokens_per_pair(work)
        sides = [side for side in SIDES if side != FACTORY or os.environ.get(PEER)]
        runs: dict[str, list[Run]] = {side: [] for side in sides}
        for turn in range(scale.repeats):
            for side in sides:
                tell(f"{side}, {turn + 1} of {scale.repeats}")
                runs[side].append(_run(side, work, Path(folder)))
    found = {side: rates(each, tokens) for side, each in runs.items()}
    typer.echo(table(found))
    how = f"medians of {scale.repeats}, {scale.pairs} pairs of {tokens:.0f} tokens, batch {TRAINING.batch_size}"
    return figures(found, runs[OURS], f"{how}, {work['numerics']['dtype']}")


def tokens_per_pair(work: Mapping[str, Any]) -> float:
    """Of a prompt and both answers, cut as in training; mean over the pairs of a task."""
    tokenizer = load_tokenizer(work["policy"]["base_path"])
    pairs = load_version(Path(work["version"]["path"])).pairs("train")
    found = (encode_pair(tokenizer, pair, max_length=TRAINING.max_length) for pair in pairs)
    return mean(len(e.chosen.prompt) + sum(len(side.completion) for side in e) for e in found if e)


def rates(runs: Sequence[Run], tokens: float) -> Rates:
    """Of one side.

    Args:
        runs: of it.
        tokens: of a pair.
    """
    pairs_per_s = TRAINING.batch_size / median(run.step_s for run in runs)
    peak_mb, round_s = (median(each) for each in zip(*((run.peak_mb, run.round_s) for run in runs), strict=True))
    return Rates(pairs_per_s, tokens * pairs_per_s, peak_mb, round_s)


def table(found: Mapping[str, Rates]) -> str:
    """Markdown: a row for each side."""
    lines = ["| | pairs/s | tokens/s | most memory, MB | a cold round, s |", "|---|---|---|---|---|"]
    for side, (pairs, tokens, peak, whole) in found.items():
        lines.append(f"| {side} | {pairs:.2f} | {tokens:.0f} | {peak:.0f} | {whole:.0f} |")
    return "\n".join(lines)


def figures(found: Mapping[str, Rates], ours: Sequence[Run], how: str) -> list[Figure]:
    """Against every peer alike: which one is the fastest changes with the machine.

    Args:
        found: what each side does.
        ours: our own runs.
        how: for the notes.
    """
    useful, blocks = (median(each) for each in zip(*((run.useful, run.from_blocks) for run in ours), strict=True))
    peak, tuned = found[OURS].peak_mb, found[TUNED].peak_mb
    return [
        *(_trained(found, peer, how) for peer in PEERS),
        *(_cold(found, peer) for peer in PEERS),
        Figure("peak memory over TRL tuned", peak / tuned, 0.5, note=f"{peak:.0f} against {tuned:.0f} MB"),
        Figure("useful-FLOP share in training", useful, 0.6, "at least",
               note=f"matrix products of the step at their own measured rate, over the step; {blocks:.2f} if from blocks, too"),
    ]  # fmt: skip


def _trained(found: Mapping[str, Rates], peer: str, how: str) -> Figure:
    called, target = PEERS[peer]
    name = f"training pairs/s over {called}"
    if peer not in found:
        return Figure(name, None, target, "at least", f"{PEER} is not set")
    ours, theirs = found[OURS], found[peer]
    note = (
        f"{ours.pairs_per_s:.2f} against {theirs.pairs_per_s:.2f} pairs/s, {ours.tokens_per_s:.0f} against "
        f"{theirs.tokens_per_s:.0f} tokens/s, {ours.peak_mb:.0f} against {theirs.peak_mb:.0f} MB; {how}"
    )
    return Figure(name, ours.pairs_per_s / theirs.pairs_per_s, target, "at least", note)


def _cold(found: Mapping[str, Rates], peer: str) -> Figure:
    name = f"speed of a cold round, anchor scored, over {PEERS[peer][0]}"
    if peer not in found:
        return Figure(name, None, COLD, "at least", f"{PEER} is not set")
    ours, theirs = found[OURS].round_s, found[peer].round_s
    return Figure(name, theirs / ours, COLD, "at least", f"{ours:.0f} against {theirs:.0f} s")


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
