"""Reward models as rewards."""

from collections.abc import Sequence

from workbench.config import NumericsSettings
from workbench.models.reward_model import RewardModel
from workbench.models.tokens import encode_answer
from workbench.rewards.interface import Reward, Said
from workbench.tasks import PolicyRef


def by_model(ref: PolicyRef, numerics: NumericsSettings) -> Reward:
    """A trained reward model as a reward.

    It reads as many tokens as it was trained to; of an answer to a longer prompt it still reads the first ones.

    Args:
        ref: the reward model.
        numerics: precision and threads.

    Raises:
        PolicyError: it cannot be loaded.
    """
    model = RewardModel(ref, numerics)

    def run(said: Sequence[Said]) -> list[float]:
        return model(
            [encode_answer(model.tokenizer, one.prompt, one.text, max_length=model.max_length) for one in said]
        )

    return run
