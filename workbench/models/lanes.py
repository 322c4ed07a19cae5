"""Passes side by side, each in a thread of its own with its share of the cores.

Between the large products of a pass lie thousands of small operators, for which one core is enough. With a pass each, all
cores are busy.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

from workbench.config import NumericsSettings
from workbench.models.forward import Layout
from workbench.models.numerics import precision

LANES = 2
"""How many passes are computed at once. More would make their products shorter, and wait for each other's Python."""

T = TypeVar("T")
R = TypeVar("R")


class Lanes:
    """Threads that compute passes.

    Args:
        numerics: precision, and the cores that are shared out.
        threads: as many as there are lanes.
    """

    def __init__(self, numerics: NumericsSettings, threads: ThreadPoolExecutor) -> None:
        self._numerics, self._threads = numerics, threads

    def run(self, work: Callable[[T], R], given: Sequence[T]) -> list[R]:
        """What `work` says of each, in their order.

        Raises:
            Exception: what `work` raised of the first of them; the others have ended.
        """
        futures = [self._threads.submit(self._one, work, each) for each in given]
        wait(futures)
        torch.set_num_threads(self._numerics.threads)  # some libraries have one number for all threads of a process
        return [each.result() for each in futures]

    def _one(self, work: Callable[[T], R], given: T) -> R:
        torch.set_num_threads(self._numerics.threads // LANES)
        with precision(self._numerics):
            return work(given)


def has_cores(numerics: NumericsSettings, layout: Layout) -> bool:
    """Whether lanes have as many cores each; rows other than packed ones have few small operators for each product."""
    return numerics.device == "cpu" and numerics.threads % LANES == 0 and layout == "packed"


@contextmanager
def lanes(numerics: NumericsSettings, *, wanted: bool) -> Iterator[Lanes | None]:
    """Threads for a block, or none."""
    if not wanted:
        yield None
        return
    with ThreadPoolExecutor(LANES, thread_name_prefix="lane") as threads:
        yield Lanes(numerics, threads)
