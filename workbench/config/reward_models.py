"""Settings of reward models."""

from typing import Self

from pydantic import Field, model_validator

from workbench.config.rounds import NumericsSettings, TrainingSettings
from workbench.config.settings import Settings


class RewardModelSettings(Settings):
    """How a reward model is trained: an adapter and a linear head over a policy, on the pairs of a version."""

    version: str = "latest"
    policy: str = "base"
    """Whose base it sits on; its weights start from the base."""
    margin: float = Field(default=0.0, ge=0)
    """How far ahead the chosen answer has to be where people said it is much better (strength 3), in units of reward; less
    strength asks for less in proportion, pairs without one for nothing."""
    centre: float = Field(default=0.01, ge=0)
    """Weight of what holds rewards near zero."""
    training: TrainingSettings = TrainingSettings()
    numerics: NumericsSettings = NumericsSettings()

    @model_validator(mode="after")
    def _an_adapter(self) -> Self:
        if self.training.method != "lora":
            raise ValueError("training.method: a reward model is an adapter over a base; use method = 'lora'")
        if self.training.token_metrics:
            raise ValueError("training.token_metrics: a reward model predicts no tokens; leave it out")
        return self
