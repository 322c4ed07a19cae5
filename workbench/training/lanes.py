"""Passes of a batch side by side, each in a thread of its own with its share of the cores.

Between the large products of a pass lie thousands of small operators, for which one core is enough. With a pass each, all
cores are busy.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

from workbench.config import BY_BATCH, NumericsSettings
from workbench.models.forward import Layout
from workbench.models.numerics import precision
from workbench.tasks import TrainJob

LANES = 2
"""How many passes are computed at once. More would make their products shorter, and wait for each other's Python."""
WORTH = 300
"""Fewest tokens of a batch that is divided: of shorter ones the time is Python's, of which two passes need twice as much."""
OF_ITS_PAIRS = frozenset({"hold"})
"""Penalties that look at a pass alone; the others have the model speak as another policy meanwhile."""


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


@contextmanager
def lanes(numerics: NumericsSettings, *, wanted: bool) -> Iterator[Lanes | None]:
    """Threads for a block, or none."""
    if not wanted:
        yield None
        return
    with ThreadPoolExecutor(LANES, thread_name_prefix="lane") as threads:
        yield Lanes(numerics, threads)


def has_lanes(job: TrainJob, penalties: Sequence[str], layout: Layout, *, recompute: bool) -> bool:
    """Whether the passes of a job can be computed side by side, and gain by it.

    Args:
        job: of pairs or of fresh answers.
        penalties: names of what is added to the loss.
        layout: of the rows; tried with packed ones only.
        recompute: whether activations are computed again on the way back, for want of memory.
    """
    asks_the_model = job.online.on or job.moving.share > 0 or not OF_ITS_PAIRS.issuperset(penalties)
    by_itself = job.objective.loss not in BY_BATCH and not job.training.token_metrics
    light = job.training.method == "lora" and layout == "packed" and not recompute
    has_cores = job.numerics.device == "cpu" and job.numerics.threads % LANES == 0  # as many for each lane
    return has_cores and by_itself and light and not asks_the_model


def divided(lengths: Sequence[int], together: Sequence[object]) -> list[list[int]]:
    """Pairs of a pass in parts of about the same length; in one where they are short.

    Args:
        lengths: of the pairs in tokens.
        together: what pairs of one part have in common, such as their prompt, which is computed once.

    >>> divided([300, 200, 100, 90], ["a", "b", "c", "d"])
    [[0, 3], [1, 2]]
    >>> divided([300, 200, 100, 90], ["a", "b", "a", "a"])
    [[0, 2, 3], [1]]
    """
    if sum(lengths) < WORTH:
        return [list(range(len(lengths)))]
    groups: dict[object, list[int]] = {}
    for i, each in enumerate(together):
        groups.setdefault(each, []).append(i)
    parts: list[list[int]] = [[] for _ in range(LANES)]
    for group in sorted(groups.values(), key=lambda group: (-sum(lengths[i] for i in group), group)):
        min(parts, key=lambda part: sum(lengths[i] for i in part)).extend(group)
    return [sorted(part) for part in parts if part]
