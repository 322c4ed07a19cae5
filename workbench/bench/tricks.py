"""`workbench bench tricks`: what each of the things that make training and sampling fast buys, one switched off at a time."""

import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import torch

from preference_data.versions import load_version
from workbench.bench.apart import apart
from workbench.bench.figures import Figure
from workbench.bench.speed import FULL, QUICK, Run, Scale, task
from workbench.config import NumericsSettings
from workbench.models.forward import CompletionStates, Rows, completion_logps, completion_states
from workbench.models.load import family_of
from workbench.models.numerics import apply_numerics
from workbench.models.sampling import Sampling, sample
from workbench.models.sharing import layout_of
from workbench.tasks import PolicyRef
from workbench.training.memory import Fit, fit, recompute

ALL = "all of it"
PROMPTS, ANSWERS, AT_ONCE = 16, 4, 16
"""Prompts sampled for, answers to each, and answers written at once."""
LONGEST, SHORT = 48, 8
"""Most tokens of an answer; with `--quick`."""


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


def _never(*_: Any, **__: Any) -> bool:
    return False


def _reference_again(model: Any, rows: Rows) -> CompletionStates:
    with torch.no_grad(), model.disable_adapter():
        completion_logps(model, rows)
    return completion_states(model, rows)


def _recomputed(model: Any, batches: Sequence[int], **more: Any) -> Fit:
    found = fit(model, batches, **more)
    recompute(model)
    return found._replace(recompute=True)


def _as_given(prompts: Sequence[tuple[int, ...]], sampling: Sampling) -> Iterator[list[int]]:
    for start in range(0, len(prompts), sampling.batch_size):
        yield list(range(len(prompts)))[start : start + sampling.batch_size]


def _one_answer_each(prompts: Sequence[tuple[int, ...]], sampling: Sampling) -> Iterator[list[int]]:
    """Answers to the same prompt in batches of their own, each of prompts of similar length."""
    before: Counter[tuple[int, ...]] = Counter()
    turns: list[list[int]] = []
    for i in sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), prompts[i], i)):
        if before[prompts[i]] == len(turns):
            turns.append([])
        turns[before[prompts[i]]].append(i)
        before[prompts[i]] += 1
    for turn in turns:
        for chosen in _as_given([prompts[i] for i in turn], sampling):
            yield [turn[k] for k in chosen]


LAYOUTS = ("workbench.training.optimise.layout_of", "workbench.models.load.layout_of")
"""In training and where policies are loaded: the proof at a round's end compares the two."""

SWITCHED_OFF: Mapping[str, Mapping[str, Any]] = {
    ALL: {},
    "packing, a row per prompt": dict.fromkeys(LAYOUTS, _shared),
    "shared prompts, a row per answer": dict.fromkeys(LAYOUTS, _plain),
    "beginnings in common computed once": {"workbench.models.forward._in_common": _own},
    "adapted layers as one product": {"workbench.models.load.use_one_product": _nothing},
    "norms in the precision of products": {"workbench.models.sharing.use_low_norms": _nothing},
    "rotary positions in the precision of products": {"workbench.models.sharing.use_own_rotation": _nothing},
    "two passes side by side": {"workbench.training.optimise.has_lanes": _never},
    "long products in halves": {"workbench.models.packed._in_halves": _never},
    "log-probabilities from the head directly": {"workbench.models.sharing.use_direct_head": _nothing},
    "frozen matrices held in bfloat16, and so in no blocks": {"workbench.training.optimise.hold_in_half": _nothing},
    "frozen matrices in the blocks the CPU multiplies from": {"workbench.models.packed.can_pack": _never},
    "keeping freed memory": {"workbench.models.load.keep_freed_memory": _nothing},
    "anchors scored before training": {"workbench.training.trainer.completion_states": _reference_again},
    "activations kept": {"workbench.training.optimise.fit": _recomputed},
}
"""What is missing, and by what functions are replaced for it."""

SAMPLING: Mapping[str, Mapping[str, Any]] = {
    ALL: {},
    "prompts in one row, padded": {"workbench.models.load.layout_of": _plain},
    "answers to a prompt in one batch, which reads it once": {"workbench.models.sampling._batches": _one_answer_each},
    "prompts of similar length in a batch": {"workbench.models.sampling._batches": _as_given},
    "keys and values in a block with room, copied": {"workbench.models.growing.DynamicLayer": object},
    "rows leaving when their answer has ended": {"workbench.models.growing.KEPT_SHARE": 0.0},
}
"""The same of sampling."""


def measure(tell: Callable[[str], None], *, quick: bool) -> list[Figure]:
    """How much longer a step takes without each; below one it would be better off."""
    return _compared("a step", SWITCHED_OFF, tell, scale=QUICK if quick else FULL, more={})


def measure_sampling(tell: Callable[[str], None], *, quick: bool) -> list[Figure]:
    """How much longer answers take without each, several to a prompt of the same preferences."""
    more = {"answer_tokens": SHORT if quick else LONGEST}
    return _compared("sampling", SAMPLING, tell, scale=QUICK if quick else FULL, more=more)


def _compared(
    what: str, off: Mapping[str, Any], tell: Callable[[str], None], *, scale: Scale, more: Mapping[str, Any]
) -> list[Figure]:
    runs: dict[str, list[Run]] = {name: [] for name in off}
    with tempfile.TemporaryDirectory() as folder:
        work = {**task(Path(folder), scale.pairs), **more}
        for turn in range(scale.repeats):
            for name, each in runs.items():
                tell(f"without {name}, {turn + 1} of {scale.repeats}" if name != ALL else f"{ALL}, {turn + 1}")
                each.append(_apart({**work, "without": name}, Path(folder)))
    took = {name: median(run.step_s for run in each) for name, each in runs.items()}
    peak = {name: median(run.peak_mb for run in each) for name, each in runs.items()}
    return [
        Figure(f"time of {what} without {name}", took[name] / took[ALL], 1.0, "at least",
               note=f"{took[name]:.2f} against {took[ALL]:.2f} s, {peak[name]:.0f} against {peak[ALL]:.0f} MB")
        for name in runs if name != ALL
    ]  # fmt: skip


def _apart(work: Mapping[str, Any], folder: Path) -> Run:
    given, told = folder / "work.json", folder / "told.json"
    given.write_text(json.dumps(work), encoding="utf-8")
    command = [sys.executable, "-m", "workbench.bench.tricks", str(given)]
    return Run(**apart(command, told, what=f"tricks: without {work['without']}"))


def _run(given: Path) -> Run:
    work = json.loads(given.read_text(encoding="utf-8"))
    ours = import_module("workbench.bench.speed_ours")
    for name, replacement in (SAMPLING if "answer_tokens" in work else SWITCHED_OFF)[work["without"]].items():
        module, _, attribute = name.rpartition(".")
        if not hasattr(import_module(module), attribute):
            raise AttributeError(name)
        setattr(import_module(module), attribute, replacement)
    return sampled(work) if "answer_tokens" in work else ours.run(given)


def sampled(work: Mapping[str, Any]) -> Run:
    """Answers to some of the task's prompts, after a few tokens of them for whatever is made when first used."""
    policy, numerics = PolicyRef(**work["policy"]), NumericsSettings(**work["numerics"])
    pairs = load_version(Path(work["version"]["path"])).pairs("train")[:PROMPTS]
    asked = [pair.prompt for pair in pairs for _ in range(ANSWERS)]
    family = family_of(policy, numerics)
    began = 0.0
    with apply_numerics(numerics), family.using(policy) as model:
        for tokens in (2, work["answer_tokens"]):
            began = time.perf_counter()
            sample(model, family.tokenizer, asked, Sampling(tokens, 1.0, 1.0, AT_ONCE, 0), layout=family.layout)
    took = time.perf_counter() - began
    return Run(took, took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 0.0)


PARTS = {"all": measure, "sampling": measure_sampling}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(_run(Path(sys.argv[1]))._asdict()), encoding="utf-8")
