"""What a reward is, and what it may not answer."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from preference_data.records import Comparison, Prompt
from workbench.errors import RewardError


class Said(NamedTuple):
    """An answer to be rewarded.

    Attributes:
        slices: what the prompt belongs to.
        finished: the answer came to an end by itself.
    """

    prompt: Prompt
    text: str
    slices: Mapping[str, str]
    finished: bool


Reward = Callable[[Sequence[Said]], Sequence[float]]
"""One number for each answer, in their order; higher is better."""


def checked(name: str, reward: Reward) -> Reward:
    """The same reward, refused where it answers nonsense.

    Args:
        name: told in errors.
        reward: called with at least one answer.
    """

    def run(said: Sequence[Said]) -> list[float]:
        if not said:
            return []
        try:
            found = list(reward(said))
        except RewardError:
            raise
        except Exception as error:
            raise RewardError(f"reward {name}: failed: {type(error).__name__}: {error}; correct it, then go on with the round"
                              ) from error  # fmt: skip
        if len(found) != len(said):
            raise RewardError(
                f"reward {name}: gave {len(found)} numbers for {len(said)} answers; expected one for each"
            )
        return [_number(name, value, one) for value, one in zip(found, said, strict=True)]

    return run


def _number(name: str, value: object, said: Said) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RewardError(f"reward {name}: got {value!r} for {said.text[:60]!r}; expected a number")
    if not math.isfinite(value):
        raise RewardError(f"reward {name}: got {value} for {said.text[:60]!r}; expected a finite number")
    return float(value)


def gaps(reward: Reward, comparisons: Sequence[Comparison]) -> list[float]:
    """Reward of the first answer minus the second's, of comparisons of two."""
    said = [Said(c.prompt, one.text, c.slices, finished=True) for c in comparisons for one in c.completions]
    scores = reward(said)
    return [scores[k] - scores[k + 1] for k in range(0, len(scores), 2)]


def total(parts: Sequence[tuple[Reward, float]]) -> Reward:
    """The weighted sum of some rewards."""

    def run(said: Sequence[Said]) -> list[float]:
        columns = [[weight * value for value in reward(said)] for reward, weight in parts]
        return [math.fsum(column) for column in zip(*columns, strict=True)]

    return run
