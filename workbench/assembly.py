"""Composition root: which tools a round is given. The only place with deferred imports.

Everything heavy (torch, transformers, TRL, Ray) is imported when a verb is first used, so that reading settings,
listing rounds and refusing a bad plan take well under a second.
"""

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, assert_never

from workbench.config import NumericsSettings, Rounded
from workbench.reward_tasks import RewardItemsJob, RewardJob, RewardTools
from workbench.rewards import Reward
from workbench.speaking import Speak, SpeakJob
from workbench.tasks import (
    EvaluateJob,
    ExplainJob,
    GenerateJob,
    MergeJob,
    Plan,
    PolicyRef,
    Progress,
    Report,
    ScoreJob,
    Tools,
    TrainJob,
    Workload,
)

if TYPE_CHECKING:
    from preference_data.records import Prompt
    from workbench.models.sampling import Answer, Sampling
    from workbench.models.score_table import PairScore
    from workbench.training.online.writers import Write

Where = Literal["auto", "here", "ray"]

CPU_SHARE = Path("/sys/fs/cgroup/cpu.max")


def score(job: ScoreJob, report: Report) -> None:
    """`workbench.scoring.score.score`."""
    _quiet()
    from workbench.scoring.score import score as run

    run(job, report)


def missing(job: ScoreJob) -> int:
    """`workbench.scoring.score.missing`."""
    _quiet()
    from workbench.scoring.score import missing as run

    return run(job)


def optimise(job: TrainJob, report: Report, write: "Write | None" = None) -> None:
    """`workbench.training.optimise.optimise`."""
    _quiet()
    from workbench.training.optimise import optimise as run

    run(job, report, write)


def writer(job: TrainJob) -> "Callable[[Mapping[str, Any], Sequence[Prompt], Sampling], list[Answer]]":
    """`Writer` or `VllmWriter` of `workbench.training.online`: what a worker writes answers with."""
    _quiet()
    match job.online.engine:
        case "own":
            from workbench.training.online.writers import Writer

            return Writer(job).write
        case "vllm":
            from workbench.training.online.vllm_writer import VllmWriter

            return VllmWriter(job).write
        case _:
            assert_never(job.online.engine)


def evaluate(job: EvaluateJob, report: Report) -> None:
    """`workbench.evaluation.evaluate.evaluate`."""
    _quiet()
    from workbench.evaluation.evaluate import evaluate as run

    run(job, report)


def generate(job: GenerateJob, report: Report) -> None:
    """`workbench.generation.generate.generate`."""
    _quiet()
    from workbench.generation.generate import generate as run

    run(job, report)


def explain(job: ExplainJob, report: Report) -> None:
    """`workbench.training.influence.explain`."""
    _quiet()
    from workbench.training.influence import explain as run

    run(job, report)


def merge(job: MergeJob, report: Report) -> None:
    """`workbench.models.export.merge`."""
    _quiet()
    from workbench.models.export import merge as run

    run(job)
    report(Progress("merge", 1, 1, {}))


def workload(plan: Plan) -> Workload:
    """`workbench.models.cost.workload`: loads the tokenizer, no weights."""
    _quiet()
    from workbench.models.cost import workload as run

    return run(plan)


def fastest(threads: int) -> NumericsSettings:
    """`workbench.models.rate.fastest`: the faster precision, measured in under a second."""
    from workbench.models.rate import fastest as run

    return run(threads)


def fastest_here() -> NumericsSettings:
    """All cores this process may use, in the faster precision."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:  # a container may be given less than it sees: microseconds in every so many
        share, of = CPU_SHARE.read_text(encoding="utf-8").split()
        cores = max(1, min(cores, int(share) // int(of)))
    except (OSError, ValueError):  # no such limit here, or "max"
        pass
    return fastest(cores)


def export_policy(policy: PolicyRef, output: Path, *, merged: bool, rounded: Rounded | None = None) -> None:
    """`workbench.models.export.export`, or `merge` for what has to be rounded."""
    _quiet()
    from workbench.models import export

    if rounded:
        export.merge(MergeJob(policy, str(output), NumericsSettings(), rounded))
    else:
        export.export(policy, output, merged=merged)


def cached_model(name: str) -> Path:
    """The folder of a model in this machine's Hugging Face cache; nothing is fetched.

    Raises:
        ModelError: no such model in the cache.
    """
    _quiet()
    from workbench.models.hub import cached_model as run

    return run(name)


def scores_of(folder: Path) -> "dict[str, PairScore]":
    """`workbench.models.score_table.read_table`."""
    from workbench.models.score_table import read_table as run

    return run(folder)


def train_reward(job: RewardJob, report: Report) -> None:
    """`workbench.training.reward_model.train_reward_model`."""
    _quiet()
    from workbench.training.reward_model import train_reward_model as run

    run(job, report)


def reward_items(job: RewardItemsJob, report: Report) -> None:
    """`workbench.evaluation.rewarded.reward_items`."""
    _quiet()
    from workbench.evaluation.rewarded import reward_items as run

    run(job, report)


def average_rewards(models: Sequence[PolicyRef], output: Path) -> None:
    """`workbench.models.reward_model.average`."""
    _quiet()
    from workbench.models.reward_model import average as run

    run(models, output)


def reward_of(model: PolicyRef, numerics: NumericsSettings) -> Reward:
    """`workbench.rewards.trained.by_model`."""
    _quiet()
    from workbench.rewards.trained import by_model as run

    return run(model, numerics)


REWARDS_IN_PROCESS = RewardTools(train=train_reward, items=reward_items)
IN_PROCESS = Tools(score=score, optimise=optimise, evaluate=evaluate, generate=generate, merge=merge, explain=explain)


@contextmanager
def tools(where: Where) -> Iterator[Tools]:
    """The verbs, in this process or on Ray.

    Args:
        where: `auto` uses Ray if RAY_ADDRESS names a cluster, and this process otherwise.
    """
    if is_here(where):
        yield IN_PROCESS
        return
    _quiet_ray()
    from workbench.cluster.ray_tools import RayOptions, cluster, ray_tools

    options = RayOptions(address=os.environ.get("RAY_ADDRESS"))
    with cluster(options):
        yield ray_tools(IN_PROCESS, options, writer, missing)


@contextmanager
def reward_tools(where: Where) -> Iterator[RewardTools]:
    """The verbs about reward models, as `tools` gives those of rounds."""
    if is_here(where):
        yield REWARDS_IN_PROCESS
        return
    _quiet_ray()
    from workbench.cluster.ray_tools import RayOptions, cluster, ray_reward_tools

    options = RayOptions(address=os.environ.get("RAY_ADDRESS"))
    with cluster(options):
        yield ray_reward_tools(REWARDS_IN_PROCESS, options)


def is_here(where: Where) -> bool:
    """Whether that is this process, and not Ray."""
    return where == "here" or (where == "auto" and not os.environ.get("RAY_ADDRESS"))


def _quiet_ray() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def speak(job: SpeakJob) -> Iterator[str]:
    """`workbench.generation.speak.speak`."""
    _quiet()
    from workbench.generation.speak import speak as run

    yield from run(job)


@contextmanager
def speaking(where: Where, *, count: int, threads: int) -> Iterator[Speak]:
    """Something that answers, in this process one job at a time, or on Ray with `count` workers.

    Args:
        where: as for `tools`.
        count: workers on Ray.
        threads: CPUs of each.
    """
    if is_here(where):
        yield one_at_a_time(speak)
        return
    _quiet_ray()
    from workbench.cluster.ray_tools import RayOptions, cluster
    from workbench.cluster.speakers import Speakers

    with cluster(RayOptions(address=os.environ.get("RAY_ADDRESS"))):
        yield Speakers(speak, count, threads)


def one_at_a_time(verb: Speak) -> Speak:
    """The same, for callers on several threads: a loaded model behaves as one policy at a time.

    Every piece is written on one thread, whichever asks for it: torch keeps for each thread whether it infers, and in what
    precision, and a web server asks for the next piece from whatever thread is free.
    """
    lock, writer = Lock(), ThreadPoolExecutor(1)

    def locked(job: SpeakJob) -> Iterator[str]:
        with lock:
            pieces = verb(job)
            try:
                while (piece := writer.submit(next, pieces, None).result()) is not None:
                    yield piece
            finally:
                # Not waited for: what is given up may be collected on the very thread that writes.
                writer.submit(_end, pieces)

    return locked


def _end(pieces: Iterator[str]) -> None:
    if isinstance(pieces, Generator):
        pieces.close()


def _quiet() -> None:
    """No telemetry, no hub, no progress bars of other libraries; before they are imported."""
    for name, value in {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }.items():
        os.environ.setdefault(name, value)
    import warnings

    # transformers and TRL warn about each other's deprecated names; nothing a user of the workbench can change.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|trl")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
