"""Our side of `workbench bench speed`: score the anchor, train, say how long it took."""

import json
import resource
import sys
import time
from pathlib import Path

from workbench.bench.speed import Run
from workbench.bench.useful import products_s
from workbench.config import NumericsSettings, ObjectiveSettings, TrainingSettings
from workbench.scoring.score import score
from workbench.tasks import Anchor, PolicyRef, Progress, ScoreJob, TrainJob, VersionRef
from workbench.training.optimise import optimise


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
    ended: list[float] = []
    room: list[float] = []

    def report(progress: Progress) -> bool:
        if progress.step == "fit":
            room.append(progress.facts["tokens_per_pass"])
        if progress.step == "optimise":  # the clock stops with the step, before KL is measured for the progress bar
            ended.append(progress.done * training.batch_size * training.accumulation / progress.facts["pairs_per_s"])
        return False

    job = TrainJob(
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
    )
    optimise(job, report)
    whole = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    step = (ended[-1] - ended[0]) / (len(ended) - 1)
    alone = products_s(job, int(room[0]))
    return Run(step, whole, peak, alone.plain / step, alone.blocks / step)


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(run(Path(sys.argv[1]))._asdict()), encoding="utf-8")
