"""`workbench bench tricks`: what each of the things that make training fast buys, one switched off at a time."""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from workbench.bench.apart import apart
from workbench.bench.figures import Figure
from workbench.bench.speed import FULL, QUICK, Run, task
from workbench.models.sharing import layout_of

ALL = "all of it"


def _nothing(*_: Any) -> None:
    """In the place of what switches something on."""


def _plain(model: Any) -> str:
    layout_of(model)
    return "plain"


def _shared(model: Any) -> str:
    layout_of(model)
    return "shared"


def _own(_: Any) -> int:
    return 0


def _never(*_: Any) -> bool:
    return False


LAYOUTS = ("workbench.training.optimise.layout_of", "workbench.models.load.layout_of")
"""In training and where policies are loaded: the proof at a round's end compares the two."""

SWITCHED_OFF: Mapping[str, Mapping[str, Any]] = {
    ALL: {},
    "packing, a row per prompt": dict.fromkeys(LAYOUTS, _shared),
    "shared prompts, a row per answer": dict.fromkeys(LAYOUTS, _plain),
    "beginnings in common computed once": {"workbench.models.forward._in_common": _own},
    "adapted layers as one product": {"workbench.models.load.use_one_product": _nothing},
    "log-probabilities from the head directly": {"workbench.models.sharing.use_direct_head": _nothing},
    "frozen matrices held in bfloat16, and so in no blocks": {"workbench.training.optimise.hold_in_half": _nothing},
    "frozen matrices in the blocks the CPU multiplies from": {"workbench.models.packed.can_pack": _never},
    "keeping freed memory": {"workbench.models.load.keep_freed_memory": _nothing},
}
"""What is missing, and by what functions are replaced for it."""


def measure(tell: Callable[[str], None], *, quick: bool) -> list[Figure]:
    """How much longer a step takes without each; below one it would be better off."""
    scale = QUICK if quick else FULL
    runs: dict[str, list[Run]] = {name: [] for name in SWITCHED_OFF}
    with tempfile.TemporaryDirectory() as folder:
        work = task(Path(folder), scale.pairs)
        for turn in range(scale.repeats):
            for name, each in runs.items():
                tell(f"without {name}, {turn + 1} of {scale.repeats}" if name != ALL else f"{ALL}, {turn + 1}")
                each.append(_apart({**work, "without": name}, Path(folder)))
    step = {name: median(run.step_s for run in each) for name, each in runs.items()}
    peak = {name: median(run.peak_mb for run in each) for name, each in runs.items()}
    return [
        Figure(f"time of a step without {name}", step[name] / step[ALL], 1.0, "at least",
               note=f"{step[name]:.2f} against {step[ALL]:.2f} s, {peak[name]:.0f} against {peak[ALL]:.0f} MB")
        for name in runs if name != ALL
    ]  # fmt: skip


def _apart(work: Mapping[str, Any], folder: Path) -> Run:
    given, told = folder / "work.json", folder / "told.json"
    given.write_text(json.dumps(work), encoding="utf-8")
    command = [sys.executable, "-m", "workbench.bench.tricks", str(given)]
    return Run(**apart(command, told, what=f"tricks: without {work['without']}"))


def _run(given: Path) -> Run:
    without = json.loads(given.read_text(encoding="utf-8"))["without"]
    ours = import_module("workbench.bench.speed_ours")
    for name, replacement in SWITCHED_OFF[without].items():
        module, _, attribute = name.rpartition(".")
        if not hasattr(import_module(module), attribute):
            raise AttributeError(name)
        setattr(import_module(module), attribute, replacement)
    return ours.run(given)


PARTS = {"all": measure}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(_run(Path(sys.argv[1]))._asdict()), encoding="utf-8")
