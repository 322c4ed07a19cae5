"""Which batches are computed as passes side by side, and how they are divided."""

from collections.abc import Sequence

from workbench.config import BY_BATCH
from workbench.models.forward import Layout
from workbench.models.lanes import LANES, has_cores
from workbench.tasks import TrainJob

WORTH = 300
"""Fewest tokens of a batch that is divided: of shorter ones the time is Python's, of which two passes need twice as much."""
OF_ITS_PAIRS = frozenset({"hold"})
"""Penalties that look at a pass alone; the others have the model speak as another policy meanwhile."""


def has_lanes(job: TrainJob, penalties: Sequence[str], layout: Layout, *, recompute: bool) -> bool:
    """Whether the passes of a job can be computed side by side, and gain by it.

    Args:
        job: of pairs or of fresh answers.
        penalties: names of what is added to the loss.
        layout: of the rows.
        recompute: whether activations are computed again on the way back, for want of memory.
    """
    asks_the_model = job.online.on or job.moving.share > 0 or not OF_ITS_PAIRS.issuperset(penalties)
    by_itself = job.objective.loss not in BY_BATCH and not job.training.token_metrics
    light = job.training.method == "lora" and not recompute
    return has_cores(job.numerics, layout) and by_itself and light and not asks_the_model


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
