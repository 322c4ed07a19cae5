"""Our side of `workbench bench speed`: score the anchor, train, say how long it took."""

import json
import resource
import sys
import time
from pathlib import Path

import torch

from preference_data.versions import load_version
from workbench.bench.speed import Run
from workbench.config import NumericsSettings, ObjectiveSettings, TrainingSettings
from workbench.models.load import load_full, load_tokenizer
from workbench.models.numerics import apply_numerics
from workbench.models.tokens import encode_pair
from workbench.scoring.score import score
from workbench.tasks import Anchor, PolicyRef, Progress, ScoreJob, TrainJob, VersionRef
from workbench.training.optimise import optimise

TIMED_S = 0.2


def run(given: Path) -> Run:
    """One round's scoring and training."""
    work = json.loads(given.read_text(encoding="utf-8"))
    policy, version = PolicyRef(**work["policy"]), VersionRef(**work["version"])
    training, numerics = TrainingSettings(**work["training"]), NumericsSettings(**work["numerics"])
    folder = Path(work["folder"]) / f"run-{time.monotonic_ns()}"
    for name in ("scores", "scratch", "child"):
        (folder / name).mkdir(parents=True)
    began = time.perf_counter()
    score(
        ScoreJob(
            policy=policy,
            version=version,
            splits=("train",),
            numerics=numerics,
            max_length=training.max_length,
            batch_size=16,
            cache=f"sqlite:///{folder / 'cache.db'}",
            output=str(folder / "scores"),
        ),
        lambda _: False,
    )
    steps: list[float] = []

    def report(progress: Progress) -> bool:
        if progress.step == "optimise":
            steps.append(time.perf_counter())
        return False

    optimise(
        TrainJob(
            parent=policy,
            anchors=(Anchor(policy, 1.0),),
            version=version,
            tables={policy.digest: str(folder / "scores")},
            objective=ObjectiveSettings(),
            training=training,
            numerics=numerics,
            scratch=str(folder / "scratch"),
            output=str(folder / "child"),
            plan="bench",
        ),
        report,
    )
    whole = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    step = (steps[-1] - steps[0]) / (len(steps) - 1)
    return Run(step, whole, peak, products_s(policy, version, training, numerics) / step)


def products_s(policy: PolicyRef, version: VersionRef, training: TrainingSettings, numerics: NumericsSettings) -> float:
    """Seconds the matrix products of a step take alone: each of the base's matrices forward, and back to its input."""
    tokenizer = load_tokenizer(policy.base_path)
    encoded = [
        found
        for pair in load_version(Path(version.path)).pairs("train")
        if (found := encode_pair(tokenizer, pair, max_length=training.max_length))
    ]
    answers = sum(len(side.completion) for pair in encoded for side in pair)
    tokens = answers + sum(len(pair.chosen.prompt) for pair in encoded)
    share = training.batch_size / len(encoded)
    model = load_full(policy.path)
    head = model.get_output_embeddings()
    shapes = [
        (m.out_features, m.in_features, answers if m is head else tokens)
        for m in model.modules()
        if isinstance(m, torch.nn.Linear)
    ]
    with torch.inference_mode(), apply_numerics(numerics):
        seconds = {shape: _product_s(*shape, share=share, numerics=numerics) for shape in set(shapes)}
    return sum(seconds[shape] for shape in shapes)


def _product_s(out: int, width: int, tokens: int, *, share: float, numerics: NumericsSettings) -> float:
    dtype = torch.bfloat16 if numerics.dtype == "bfloat16" else torch.float32
    rows = max(1, round(share * tokens))
    given, back, weight = (torch.ones(*shape, dtype=dtype) for shape in ((rows, width), (rows, out), (out, width)))
    torch.mm(given, weight.t())
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < TIMED_S:
        torch.mm(given, weight.t())
        torch.mm(back, weight)
        count += 1
    return elapsed / count


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(run(Path(sys.argv[1]))._asdict()), encoding="utf-8")
