"""Workers that answer, each a process with one loaded base; the least busy one gets the next job."""

from collections.abc import Iterator
from threading import Lock
from typing import Any

import ray
from ray.exceptions import RayTaskError

from workbench.speaking import Speak, SpeakJob


@ray.remote
class Speaker:
    """Answers one job at a time."""

    def speak(self, verb: Speak, job: SpeakJob) -> Iterator[str]:
        """Pieces of the answer."""
        yield from verb(job)


class Speakers:
    """A pool of workers. Make it inside `cluster`."""

    def __init__(self, verb: Speak, count: int, threads: int) -> None:
        """Start `count` workers of `threads` CPUs each; they load a model with their first job."""
        self._verb = verb
        remote: Any = Speaker
        self._workers = [
            remote.options(num_cpus=threads, max_restarts=-1, max_task_retries=0).remote() for _ in range(count)
        ]
        self._busy = [0] * count
        self._lock = Lock()

    def __call__(self, job: SpeakJob) -> Iterator[str]:
        """Pieces of the answer, from the least busy worker."""
        with self._lock:
            chosen = self._busy.index(min(self._busy))
            self._busy[chosen] += 1
        try:
            pieces = self._workers[chosen].speak.options(num_returns="streaming").remote(self._verb, job)
            for piece in pieces:
                yield ray.get(piece)
        except RayTaskError as error:
            raise error.cause from error
        finally:
            with self._lock:
                self._busy[chosen] -= 1
