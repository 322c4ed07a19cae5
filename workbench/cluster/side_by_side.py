"""Whole pieces of work side by side, each as a task of its own; what comes of them in the order they end."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import RayTaskError, WorkerCrashedError

from workbench.errors import WorkerError

Piece = TypeVar("Piece")
Found = TypeVar("Found")


def side_by_side(
    work: Callable[[Piece], Found], pieces: Sequence[Piece], *, cpus: int, environment: Mapping[str, str]
) -> Iterator[Found]:
    """What `work` makes of each piece, the first that ends first. Call inside `cluster`.

    Args:
        work: run in a worker; may be run again after its worker was lost, so it goes on where it was.
        pieces: small records.
        cpus: of each piece; as many run at once as there is room for.
        environment: variables the workers are to have.

    Raises:
        WorkerError: a worker was lost again and again.
    """
    remote = ray.remote(work).options(num_cpus=cpus, max_retries=3, runtime_env={"env_vars": dict(environment)})
    waiting: list[Any] = [remote.remote(piece) for piece in pieces]
    try:
        while waiting:
            (ended, *_), waiting = ray.wait(waiting, num_returns=1)
            yield ray.get(ended)
    except RayTaskError as error:
        raise error.cause from error
    except WorkerCrashedError as error:
        raise WorkerError(f"a worker was lost more often than allowed: {error}; run it again") from error
    finally:
        for result in waiting:
            ray.cancel(result)
