"""The guard against rewards that are climbed for their own sake."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, variance

from scipy import stats

from workbench.drift.uncertainty import LEVEL
from workbench.errors import GuardError
from workbench.rewards import Said


class Guard:
    """Stops a round whose trained reward rises while something it is not trained on falls (Gao et al., arXiv 2210.10760).

    Whenever another window of steps is full, and at the last step, the newest steps are compared with the first ones. Both
    changes must be certain: their level is shared out over all looks of a round (Bonferroni), so that no more than 2.5 % of
    rounds are stopped whose held-out reward stays where it is.

    Args:
        name: of what is not trained on.
        says: its number for a step's answers, such as their mean reward.
        window: steps of each window.
        steps: of the round.
    """

    FILE = "guard.json"

    def __init__(self, name: str, says: Callable[[Sequence[Said]], float], *, window: int, steps: int) -> None:
        self.name, self.says, self._window, self._steps = name, says, window, steps
        self._level = (1 - LEVEL) / 2 / (math.ceil(steps / window) - 1)
        self._seen: list[tuple[float, float]] = []

    def saw(self, trained: float, held_out: float) -> None:
        """What is trained on and what is not say of a step's answers.

        Raises:
            GuardError: one rose while the other fell.
        """
        self._seen.append((trained, held_out))
        seen = len(self._seen)
        if seen < 2 * self._window or (seen % self._window and seen != self._steps):
            return
        window, level = self._window, self._level
        trained_on, watched = ([row[k] for row in self._seen] for k in (0, 1))
        rose = _rose(trained_on[:window], trained_on[-window:], level=level)
        if rose and _rose(watched[-window:], watched[:window], level=level):
            rise, fall = (fmean(each[-window:]) - fmean(each[:window]) for each in (trained_on, watched))
            raise GuardError(
                f"step {seen}: the trained reward rose by {rise:.3g} while {self.name}, which is not trained on, fell by "
                f"{-fall:.3g}: the reward is being exploited; nothing of this round was promoted; correct the reward, raise "
                "online.beta, or train for fewer steps"
            )

    def after_step(self) -> None:
        """Nothing: it watches answers, not weights."""

    def save(self, folder: Path) -> None:
        """Write what was seen."""
        (folder / self.FILE).write_text(json.dumps(self._seen), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Read it."""
        self._seen = [(a, b) for a, b in json.loads((folder / self.FILE).read_text(encoding="utf-8"))]


def _rose(before: Sequence[float], after: Sequence[float], *, level: float) -> bool:
    """Whether a mean rose between two windows of one size, by Welch's t test: no step of one belongs to a step of the other."""
    count, gap = len(before), fmean(after) - fmean(before)
    parts = variance(before) / count, variance(after) / count
    if not sum(parts):
        return gap > 0
    freedom = (count - 1) * sum(parts) ** 2 / sum(part**2 for part in parts)
    return gap > float(stats.t.isf(level, freedom)) * math.sqrt(sum(parts))
