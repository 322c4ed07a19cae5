"""Reward models as rewards."""

from collections.abc import Sequence

from workbench.config import NumericsSettings
from workbench.errors import RewardError
from workbench.models.reward_model import RewardModel
from workbench.models.tokens import encode_answer
from workbench.rewards.interface import Reward, Said
from workbench.tasks import PolicyRef


def by_model(ref: PolicyRef, numerics: NumericsSettings, *, max_length: int) -> Reward:
    """A trained reward model as a reward.

    Args:
        ref: the reward model.
        numerics: precision and threads.
        max_length: tokens of prompt and answer together; longer answers are judged by their beginning.

    Raises:
        PolicyError: it cannot be loaded.
    """
    model = RewardModel(ref, numerics)

    def run(said: Sequence[Said]) -> list[float]:
        encoded = [encode_answer(model.tokenizer, one.prompt, one.text, max_length=max_length) for one in said]
        if (long := next((k for k, each in enumerate(encoded) if each is None), None)) is not None:
            raise RewardError(f"reward model {ref.digest[:12]}: the prompt {said[long].prompt.messages[-1].content[:60]!r} alone fills "
                              f"training.max_length = {max_length} tokens; raise it")  # fmt: skip
        return model([each for each in encoded if each])

    return run
