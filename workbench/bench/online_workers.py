"""How fast workers on Ray write answers, against `transformers` called directly and against each other."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch

from preference_data.records import Message, Prompt
from preference_data.samples import prompts
from workbench import assembly
from workbench.bench.figures import Figure
from workbench.cluster.ray_tools import RayOptions, cluster
from workbench.cluster.writers import Writers
from workbench.config import NumericsSettings, ObjectiveSettings, OnlineSettings, TrainingSettings
from workbench.demo import SYSTEM
from workbench.models.fetch import default_directory
from workbench.models.load import load_tokenizer, trainable
from workbench.models.numerics import apply_numerics
from workbench.models.packed import hold_in_half
from workbench.models.rate import fastest
from workbench.models.sampling import Sampling
from workbench.models.tokens import pad_id, prompt_ids
from workbench.models.weights import trained_weights
from workbench.tasks import PolicyRef, TrainJob, VersionRef

ASKED, AT_ONCE, TOKENS, TURNS = 64, 32, 48, 5
"""Prompts, those of one batch, most tokens of an answer, and how often each is timed."""
ONE, TWO, DIRECT = "one worker", "two workers", "transformers"


def workers(tell: Callable[[str], None], *, quick: bool) -> Iterator[Figure]:
    """The same batch by `generate` of transformers in this process, by one worker and by two, in turns; one thread each."""
    asked, at_once, turns = (8, 4, 3) if quick else (ASKED, AT_ONCE, TURNS)
    numerics = fastest(1)
    job = _job(numerics)
    batch = [Prompt((Message("system", SYSTEM), Message("user", p.text))) for p in prompts()[:asked]]
    sampling = Sampling(TOKENS, 1.0, 1.0, at_once, 0)
    model = trainable(job.parent, job.training, numerics)
    if numerics.dtype == "bfloat16":
        hold_in_half(model)
    weights = partial(trained_weights, model)
    directly = _directly(model, job, [batch[i : i + at_once] for i in range(0, asked, at_once)])
    with cluster(RayOptions()):
        pools = {ONE: Writers(assembly.writer, job, 1), TWO: Writers(assembly.writer, job, 2)}
        timed: dict[str, list[float]] = {DIRECT: [], **{name: [] for name in pools}}
        for turn in range(1 + turns):
            tell(f"writing, {turn + 1} of {1 + turns}")
            timed[DIRECT].append(_timed(directly))
            for name, pool in pools.items():
                timed[name].append(_timed(lambda pool=pool: pool(weights, batch, sampling)()))
        for pool in pools.values():
            pool.end()
    took = {name: median(each[1:]) for name, each in timed.items()}
    note = f"{asked} prompts by {at_once}, {TOKENS} tokens at most, the same adapter, 1 thread, {numerics.dtype}; medians of {turns}, in turns"
    yield Figure(
        "one worker over transformers' generate", took[DIRECT] / took[ONE], 0.95, "at least",
        f"{took[ONE]:.1f} against {took[DIRECT]:.1f} s; {note}",
    )  # fmt: skip
    yield Figure("two 1-thread workers over one", took[ONE] / took[TWO], 1.5, "at least", f"{took[TWO]:.1f} s; {note}")


def _timed(write: Callable[[], object]) -> float:
    began = time.perf_counter()
    write()
    return time.perf_counter() - began


def _directly(model: Any, job: TrainJob, batches: Sequence[Sequence[Prompt]]) -> Callable[[], None]:
    """`generate` on the batches, padded on the left as it wants them."""
    tokenizer = load_tokenizer(job.parent.base_path)
    pad = pad_id(tokenizer)
    rows: list[tuple[torch.Tensor, torch.Tensor]] = []
    for batch in batches:
        ids = [prompt_ids(tokenizer, p) for p in batch]
        longest = max(map(len, ids))
        padded = torch.tensor([[pad] * (longest - len(each)) + each for each in ids])
        real = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in ids])
        rows.append((padded, real))

    def write() -> None:
        with torch.no_grad(), apply_numerics(job.numerics):
            for padded, real in rows:
                model.eval().generate(
                    input_ids=padded, attention_mask=real, do_sample=True, temperature=1.0, top_p=1.0, top_k=0,
                    max_new_tokens=TOKENS, pad_token_id=pad,
                )  # fmt: skip

    return write


def _job(numerics: NumericsSettings) -> TrainJob:
    """A round whose workers are asked; only its model, adapter and precision matter."""
    folder = default_directory()
    ref = PolicyRef("base", "full", str(folder), "base", str(folder), "base")
    online = OnlineSettings.model_validate({"objective": "grpo", "rewards": [{"by": "rule:own-words"}], "workers": 1})
    return TrainJob(
        parent=ref, anchors=(), version=VersionRef("", ""), tables={}, objective=ObjectiveSettings(),
        training=TrainingSettings(), numerics=numerics, scratch="", output="", plan="", online=online,
    )  # fmt: skip
