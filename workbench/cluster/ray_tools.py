"""The verbs of a round on Ray: each runs as a task of its own, in a process of its own.

Only small records and paths cross. A task whose worker is lost is run again by Ray; it starts with an empty output
folder and, for training, goes on from the newest verified checkpoint in its scratch folder. Ray never promises
exactly once, the journal does.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError, WorkerCrashedError

from workbench.cluster.writers import Make, with_writers
from workbench.errors import WorkerError
from workbench.reward_tasks import RewardItemsJob, RewardJob, RewardTools
from workbench.tasks import (
    EvaluateJob,
    ExplainJob,
    GenerateJob,
    MergeJob,
    Part,
    Progress,
    Report,
    ScoreJob,
    Tools,
    TrainJob,
)

Job = ScoreJob | TrainJob | EvaluateJob | GenerateJob | MergeJob | ExplainJob | RewardJob | RewardItemsJob
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class RayOptions:
    """How steps use a cluster.

    Attributes:
        address: of an existing cluster; None starts one on this machine for the length of the block.
        retries: how often a step is run again after its worker was lost.
        pairs_per_worker: pairs that are worth another worker for scoring, which has to start and load the model.
    """

    address: str | None = None
    retries: int = 3
    pairs_per_worker: int = 200


@contextmanager
def cluster(options: RayOptions) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine and stop it afterwards.

    A local cluster writes its access token readable by this user alone.
    """
    before = os.umask(0o077)
    try:
        # Without an address Ray would take any cluster that runs on this machine, whoever started it.
        address = options.address or "local"
        ray.init(address=address, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    finally:
        os.umask(before)
    try:
        yield
    finally:
        ray.shutdown()


def ray_tools(local: Tools, options: RayOptions, writer: Make, missing: Callable[[ScoreJob], int]) -> Tools:
    """The same verbs as tasks. Call inside `cluster`.

    Args:
        local: the verbs.
        options: how they use the cluster.
        writer: makes what a worker writes answers with.
        missing: tells how many pairs of a job the cache has no score of.
    """
    return Tools(
        score=_spread(local.score, missing, options),
        optimise=_as_task(with_writers(local.optimise, writer), options),
        evaluate=_as_task(local.evaluate, options),
        generate=_as_task(local.generate, options),
        merge=_as_task(local.merge, options),
        explain=_as_task(local.explain, options),
    )


def ray_reward_tools(local: RewardTools, options: RayOptions) -> RewardTools:
    """The verbs about reward models as tasks. Call inside `cluster`."""
    return RewardTools(train=_as_task(local.train, options), items=_as_task(local.items, options))


@ray.remote(num_cpus=0)
class Relay:
    """Carries progress from a worker to the driver and the wish to stop back."""

    def __init__(self) -> None:
        self._waiting: list[Progress] = []
        self._stop = False

    def push(self, progress: Progress) -> bool:
        """Called by the worker; answers whether to stop."""
        self._waiting.append(progress)
        return self._stop

    def drain(self) -> list[Progress]:
        """Called by the driver; what came in since the last call."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def stop(self) -> None:
        """Called by the driver."""
        self._stop = True


def _work(verb: Callable[[Any, Report], None], job: Job, relay: Any) -> None:
    """Runs in the worker."""
    output = Path(job.output)
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    verb(job, lambda progress: ray.get(relay.push.remote(progress)))


def _as_task(verb: Callable[[Any, Report], None], options: RayOptions) -> Callable[[Any, Report], None]:
    remote = ray.remote(_work)

    def run(job: Job, report: Report) -> None:
        _run([_Task(remote, verb, job, options)], report)

    return run


def _spread(
    verb: Callable[[ScoreJob, Report], None], missing: Callable[[ScoreJob], int], options: RayOptions
) -> Callable[[ScoreJob, Report], None]:
    """What the cache lacks in parts, one for each worker that has enough to do and fits beside the others; then the whole.

    The whole finds all in the cache, so it needs no model and no worker.
    """
    remote = ray.remote(_work)

    def run(job: ScoreJob, report: Report) -> None:
        pairs = missing(job)
        parts = _workers(job, pairs, options) if pairs else 0
        shares = [replace(job, part=Part(k, parts), output=str(Path(job.output) / f"part-{k}")) for k in range(parts)]
        if shares:
            _run([_Task(remote, verb, each, options) for each in shares], report)
        for each in shares:
            shutil.rmtree(each.output, ignore_errors=True)
        verb(job, report)

    return run


def _workers(job: ScoreJob, pairs: int, options: RayOptions) -> int:
    """How many workers share the scoring of so many pairs."""
    there = ray.cluster_resources()
    room = int(there.get("CPU", 1)) // job.numerics.threads
    if job.numerics.device == "cuda":
        room = min(room, int(there.get("GPU", 0)))
    return max(1, min(room, pairs // options.pairs_per_worker))


class _Task:
    """A step on its way: what Ray knows it by, and how far it is."""

    def __init__(self, remote: Any, verb: Callable[[Any, Report], None], job: Job, options: RayOptions) -> None:
        self.relay: Any = Relay.remote()
        self.result: Any = remote.options(
            num_cpus=job.numerics.threads,
            num_gpus=int(job.numerics.device == "cuda"),
            max_retries=options.retries,
            name=verb.__name__,
        ).remote(verb, job, self.relay)
        self.last: Progress | None = None

    def news(self) -> list[Progress]:
        """What came in since the last call."""
        found: list[Progress] = ray.get(self.relay.drain.remote())
        self.last = found[-1] if found else self.last
        return found


def _run(tasks: Sequence[_Task], report: Report) -> None:
    """Pass progress on until all tasks have ended, then raise what one of them raised."""
    results = [task.result for task in tasks]
    try:
        running = True
        while running:
            ended, _ = ray.wait(results, num_returns=len(results), timeout=POLL_S)
            running = len(ended) < len(results)
            news = [progress for task in tasks for progress in task.news()]
            for progress in news if len(tasks) == 1 else _together(tasks)[: len(news)]:
                if report(progress):
                    for task in tasks:
                        task.relay.stop.remote()
        ray.get(results)
    except RayTaskError as error:
        raise error.cause from error
    except WorkerCrashedError as error:
        raise WorkerError(
            f"the worker of this step was lost more often than allowed: {error}; run the round again"
        ) from error
    finally:
        for task in tasks:
            ray.cancel(task.result)
            ray.kill(task.relay)


def _together(tasks: Sequence[_Task]) -> list[Progress]:
    """How far the tasks that have begun are in all; the total grows while others wait for room."""
    last = [task.last for task in tasks if task.last]
    return [Progress(last[0].step, sum(p.done for p in last), sum(p.total for p in last), {})] if last else []
