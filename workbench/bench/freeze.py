"""`workbench bench freeze`: a large file of preferences imported and frozen, made up of words, no two prompts alike.

Each size runs in a process of its own. What finds near-duplicates is timed apart.
"""

import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from preference_data.freeze import FreezeRule, freeze
from preference_data.importers import import_file
from preference_data.samples import choice_items
from preference_data.store import Store
from workbench.bench.apart import apart
from workbench.bench.figures import Figure

NEAR = ("split", "duplicates")
"""Stages of a freeze in which near-duplicates are looked for."""


class Run(NamedTuple):
    """What one size took.

    Attributes:
        work_s: import and freeze without near-duplicates, seconds.
        near_s: looking for near-duplicates.
        peak_mb: most memory the process held.
    """

    work_s: float
    near_s: float
    peak_mb: float


def measure(tell: Callable[[str], None], *, quick: bool) -> list[Figure]:
    """All figures; `tell` is called with what is being done."""
    small, large = (2_000, 20_000) if quick else (100_000, 1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[int, Run] = {}
        for pairs in (small, large):
            tell(f"{pairs:,} pairs")
            runs[pairs] = _apart(pairs, Path(folder))
    first, last = runs[small], runs[large]
    growth = (last.work_s / first.work_s) / (large / small)
    return [
        Figure(f"import and freeze of {small:,} pairs, s", first.work_s, 60,
               note=f"near-duplicates apart: {first.near_s:.0f} s; {first.peak_mb:.0f} MB"),
        Figure(f"time per pair of {large:,} over that of {small:,}", growth, 1.2,
               note=f"{last.work_s:.0f} s; near-duplicates apart: {last.near_s:.0f} s"),
        Figure(f"most memory at {large:,} pairs, MB", last.peak_mb, 1000),
    ]  # fmt: skip


def _apart(pairs: int, folder: Path) -> Run:
    command = [sys.executable, "-m", "workbench.bench.freeze", str(pairs), str(folder / str(pairs))]
    return Run(**apart(command, folder / "told.json", what=f"freeze: {pairs} pairs"))


def run(pairs: int, folder: Path) -> Run:
    """One size, in this process."""
    folder.mkdir(parents=True)
    file = _made_up(pairs, folder / "pairs.jsonl")
    store = Store.open(f"sqlite:///{folder / 'store.db'}")
    near = 0.0
    began = last = time.perf_counter()

    def stage(name: str, _: int, __: int | None) -> None:
        nonlocal last, near
        now = time.perf_counter()
        if name in NEAR:
            near += now - last
        last = now

    import_file(file, store, rejects=folder / "rejects.jsonl")
    last = time.perf_counter()
    freeze(store, FreezeRule(min_pairs=0), folder / "versions", progress=stage)
    whole = time.perf_counter() - began
    return Run(whole - near, near, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _made_up(pairs: int, path: Path) -> Path:
    """Prompts and answers of real words in any order: alike in length, not in content."""
    words = sorted({word for item in choice_items() for word in item.question.split()})
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(pairs):
            prompt, chosen, rejected = (" ".join(rng.choices(words, k=count)) for count in (30, 40, 40))
            file.write(json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected}) + "\n")
    return path


PARTS = {"all": measure}


if __name__ == "__main__":
    Path(sys.argv[3]).write_text(json.dumps(run(int(sys.argv[1]), Path(sys.argv[2]))._asdict()), encoding="utf-8")
