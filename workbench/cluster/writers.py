"""Workers that write the answers a round learns from, each a process with the round's model, sent the weights of the moment."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from preference_data.records import Prompt
from workbench.errors import WorkerError
from workbench.tasks import Report, TrainJob

if TYPE_CHECKING:
    from workbench.models.sampling import Answer, Sampling
    from workbench.models.weights import Weights
    from workbench.training.online.writers import Write, Written

Make = Callable[[TrainJob], Callable[[Any, Sequence[Prompt], Any], list[Any]]]
"""Makes, of a job, what writes answers: given arrays of weights by name, prompts and how to sample."""
RETRIES = 3


@ray.remote(max_restarts=-1, max_task_retries=RETRIES)
class Worker:
    """Holds a model. A call brings its weights along, so that a worker that was lost and started again needs nothing else."""

    def __init__(self, make: Make, job: TrainJob) -> None:
        self._make, self._job, self._writer = make, job, None

    def write(self, weights: dict[str, Any], prompts: Sequence[Prompt], sampling: Any) -> list[Any]:
        """Answers of the policy with these weights."""
        if self._writer is None:
            self._writer = self._make(self._job)
        return self._writer(weights, prompts, sampling)


class Writers:
    """A pool of workers. Make it inside a cluster, where there are `count` times the job's threads.

    Args:
        make: makes what a worker writes with.
        job: of the round.
        count: workers.
    """

    def __init__(self, make: Make, job: TrainJob, count: int) -> None:
        # In lock-step the trainer waits while they write: one of them takes its place.
        waits, threads = job.online.staleness == 0, job.numerics.threads
        remote: Any = Worker
        self.workers = [
            remote.options(
                num_cpus=0 if waits and not k else threads, num_gpus=int(job.numerics.device == "cuda")
            ).remote(make, job)
            for k in range(count)
        ]

    def __call__(self, weights: "Callable[[], Weights]", prompts: Sequence[Prompt], sampling: "Sampling") -> "Written":
        """Begin to write answers, the prompts shared among all workers; copies of a prompt stay together."""
        sent = ray.put({name: tensor.cpu().numpy() for name, tensor in weights().items()})
        shares = shared(prompts, len(self.workers))
        begun = [
            worker.write.remote(sent, [prompts[i] for i in share], sampling)
            for worker, share in zip(self.workers, shares, strict=True)
            if share
        ]

        def written() -> "list[Answer]":
            try:
                parts = ray.get(begun)
            except RayTaskError as error:
                raise error.cause from error
            except RayActorError as error:
                raise WorkerError(f"a worker that writes answers was lost more often than allowed: {error}; run the round again; "
                                  "it goes on from its last checkpoint") from error  # fmt: skip
            return in_place(parts, [share for share in shares if share])

        return written

    def end(self) -> None:
        """Let all workers go."""
        for worker in self.workers:
            ray.kill(worker)


def shared(prompts: Sequence[Prompt], count: int) -> list[list[int]]:
    """Places of prompts by worker: copies of one together, about as much text for each, the same every time."""
    places: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        places.setdefault(prompt.key, []).append(i)
    found, load = [list[int]() for _ in range(count)], [0] * count
    for same in sorted(places.values(), key=lambda same: (-len(prompts[same[0]].text) * len(same), same)):
        least = load.index(min(load))
        found[least] += same
        load[least] += len(same) * (1 + len(prompts[same[0]].text))
    return found


def in_place(parts: "Sequence[Sequence[Answer]]", shares: Sequence[Sequence[int]]) -> "list[Answer]":
    """Answers of all workers in the order of their prompts."""
    found = {
        i: replace(a, index=i)
        for part, share in zip(parts, shares, strict=True)
        for a, i in zip(part, share, strict=True)
    }
    return [found[i] for i in range(len(found))]


@contextmanager
def writers(make: Make, job: TrainJob) -> "Iterator[Write | None]":
    """The workers a job asks for, as long as it trains; None where it asks for none.

    Raises:
        WorkerError: the cluster has too few CPUs or GPUs for them.
    """
    count = job.online.workers if job.online.on else 0
    if not count:
        yield None
        return
    needed = (count + (job.online.staleness > 0)) * job.numerics.threads
    there = int(ray.cluster_resources().get("CPU", 0))
    if needed > there:
        raise WorkerError(
            f"online.workers = {count} with staleness = {job.online.staleness} and {job.numerics.threads} threads each needs {needed} "
            f"CPUs, the cluster has {there}; ask for fewer workers or threads"
        )
    if job.numerics.device == "cuda" and (gpus := int(ray.cluster_resources().get("GPU", 0))) < count + 1:
        raise WorkerError(
            f"online.workers = {count} on GPUs needs {count + 1} of them, the trainer's included; the cluster has {gpus}; ask for fewer "
            "workers, or leave workers out"
        )
    pool = Writers(make, job, count)
    try:
        yield pool
    finally:
        pool.end()


def with_writers(optimise: Callable[..., None], make: Make) -> Callable[[TrainJob, Report], None]:
    """The verb, given the workers its job asks for."""

    @wraps(optimise)
    def with_workers(job: TrainJob, report: Report) -> None:
        with writers(make, job) as write:
            optimise(job, report, *([write] if write else []))

    return with_workers
