"""The guard against rewards that are climbed for their own sake."""

import json
import math
from pathlib import Path

from workbench.drift.uncertainty import mean
from workbench.errors import GuardError
from workbench.rewards import Reward


class Guard:
    """Stops a round whose trained reward rises while one it is not trained on falls (Gao et al., arXiv 2210.10760).

    The last steps are compared with the first ones; both changes must be certain, at 95 %, over the steps of the windows.

    Args:
        name: of the reward that is not trained on.
        reward: it.
        window: steps of each window.
    """

    FILE = "guard.json"

    def __init__(self, name: str, reward: Reward, *, window: int) -> None:
        self.name, self.reward, self._window = name, reward, window
        self._seen: list[tuple[float, float]] = []

    def saw(self, trained: float, held_out: float) -> None:
        """Means of both rewards over a step's answers.

        Raises:
            GuardError: one rose while the other fell.
        """
        self._seen.append((trained, held_out))
        if len(self._seen) < 2 * self._window:
            return
        first, last = self._seen[: self._window], self._seen[-self._window :]
        rise, fall = (mean([b[k] - a[k] for a, b in zip(first, last, strict=True)]) for k in (0, 1))
        if rise.low is not None and rise.low > 0 and fall.high is not None and fall.high < 0:
            raise GuardError(
                f"step {len(self._seen)}: the trained reward rose by {rise.value:.3g} while {self.name}, which is not trained "
                f"on, fell by {-math.fsum([fall.value or 0.0]):.3g}: the reward is being exploited; nothing of this round was "
                "promoted; correct the reward, raise online.beta, or train for fewer steps"
            )

    def after_step(self) -> None:
        """Nothing: it watches answers, not weights."""

    def save(self, folder: Path) -> None:
        """Write what was seen."""
        (folder / self.FILE).write_text(json.dumps(self._seen), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Read it."""
        self._seen = [(a, b) for a, b in json.loads((folder / self.FILE).read_text(encoding="utf-8"))]
