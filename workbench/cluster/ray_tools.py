"""The verbs of a round on Ray: each runs as a task of its own, in a process of its own.

Only small records and paths cross. A task whose worker is lost is run again by Ray; it starts with an empty output
folder and, for training, goes on from the newest verified checkpoint in its scratch folder. Ray never promises
exactly once, the journal does.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError, WorkerCrashedError

from workbench.errors import WorkerError
from workbench.tasks import EvaluateJob, GenerateJob, Progress, Report, ScoreJob, Tools, TrainJob

Job = ScoreJob | TrainJob | EvaluateJob | GenerateJob
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class RayOptions:
    """How steps use a cluster.

    Attributes:
        address: of an existing cluster; None starts one on this machine for the length of the block.
        retries: how often a step is run again after its worker was lost.
    """

    address: str | None = None
    retries: int = 3


@contextmanager
def cluster(options: RayOptions) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine and stop it afterwards.

    A local cluster writes its access token readable by this user alone.
    """
    before = os.umask(0o077)
    try:
        ray.init(address=options.address, include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    finally:
        os.umask(before)
    try:
        yield
    finally:
        ray.shutdown()


def ray_tools(local: Tools, options: RayOptions) -> Tools:
    """The same verbs as tasks. Call inside `cluster`."""
    return Tools(
        score=_as_task(local.score, options),
        optimise=_as_task(local.optimise, options),
        evaluate=_as_task(local.evaluate, options),
        generate=_as_task(local.generate, options),
    )


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
        relay: Any = Relay.remote()
        task = remote.options(num_cpus=job.numerics.threads, max_retries=options.retries, name=verb.__name__).remote(
            verb, job, relay
        )
        try:
            _follow(task, relay, report)
        finally:
            ray.kill(relay)

    return run


def _follow(task: Any, relay: Any, report: Report) -> None:
    """Pass progress on until the task ends, then raise what it raised."""
    running = True
    while running:
        done, _ = ray.wait([task], timeout=POLL_S)
        running = not done
        for progress in ray.get(relay.drain.remote()):
            if report(progress):
                relay.stop.remote()
    try:
        ray.get(task)
    except RayTaskError as error:
        raise error.cause from error
    except WorkerCrashedError as error:
        raise WorkerError(
            f"the worker of this step was lost more often than allowed: {error}; run the round again"
        ) from error
