"""Which preference losses there are, and the settings of one."""

from importlib.metadata import EntryPoint, entry_points
from typing import Self

from pydantic import Field, field_validator, model_validator

from workbench.config.settings import Settings

EXACT_LOSSES = ("sigmoid", "hinge", "robust", "exo_pair", "discopop", "fpo", "copr")
"""Losses of the margin alone: the geometric reference is exact for them (its normaliser cancels)."""

APPROXIMATE_LOSSES = ("ipo", "sigmoid_norm", "cppo", "kto_pair")
"""Losses that need each side apart, or divide it by its length, so that the normaliser no longer cancels."""

OF_ANSWERS = ("kto",)
"""Losses of answers by themselves, each good or bad; approximate, too."""

BY_BATCH = ("cppo", "kto_pair", *OF_ANSWERS)
"""Losses that weigh the pairs of a batch against each other, so that a batch cannot be computed in parts."""

LOSSES_ELSEWHERE = "continual_alignment.losses"
"""Entry points of losses that installed packages bring; each leads to a `workbench.maths.PairLoss`. It counts as
approximate unless the function has an attribute `exact` that is True."""


def losses_elsewhere() -> dict[str, EntryPoint]:
    """Losses of installed packages, by name; nothing of them is imported."""
    return {point.name: point for point in entry_points(group=LOSSES_ELSEWHERE)}


class ObjectiveSettings(Settings):
    """The preference loss."""

    loss: str = "sigmoid"
    """sigmoid, hinge, robust, exo_pair, discopop, fpo, copr (exact with several anchors), ipo, sigmoid_norm, cppo, kto_pair,
    kto (approximate; kto of answers by themselves), or one that an installed package registers."""
    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature, per nat; larger pulls harder towards the reference."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Assumed share of flipped labels; used by `robust` and `exo_pair` only."""
    kto_good: float = Field(default=1.0, gt=0, exclude_if=(1.0).__eq__)
    """For `kto`: what a good answer counts against a bad one (`kto_bad`); where one kind is rarer, more."""
    kto_bad: float = Field(default=1.0, gt=0, exclude_if=(1.0).__eq__)
    """For `kto`: what a bad answer counts."""
    allow_approximate: bool = False
    """Accept a loss for which several anchors are only approximately one reference."""

    @field_validator("loss")
    @classmethod
    def _loss_is_known(cls, name: str) -> str:
        known = (*EXACT_LOSSES, *APPROXIMATE_LOSSES, *OF_ANSWERS)
        if name not in known and name not in (elsewhere := losses_elsewhere()):
            raise ValueError(f"unknown loss '{name}'; known losses: {', '.join((*known, *elsewhere))}")
        return name

    @property
    def exact(self) -> bool:
        """Whether several anchors are exactly one reference for this loss; made elsewhere, where it says `exact`."""
        if self.loss in (*EXACT_LOSSES, *APPROXIMATE_LOSSES, *OF_ANSWERS):
            return self.loss in EXACT_LOSSES
        return getattr(losses_elsewhere()[self.loss].load(), "exact", False) is True

    @property
    def of_answers(self) -> bool:
        """Whether the loss is of answers by themselves and not of pairs."""
        return self.loss in OF_ANSWERS

    @model_validator(mode="after")
    def _kto_weighs_answers(self) -> Self:
        if not self.of_answers and (self.kto_good, self.kto_bad) != (1, 1):
            raise ValueError(f"kto_good = {self.kto_good:g}, kto_bad = {self.kto_bad:g} have no effect with loss = '{self.loss}'; "
                             "use loss = 'kto', or leave them out")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _smoothing_is_used(self) -> Self:
        unused = {*EXACT_LOSSES, *APPROXIMATE_LOSSES, *OF_ANSWERS} - {"robust", "exo_pair"}
        if self.label_smoothing and self.loss in unused:
            raise ValueError(f"label_smoothing = {self.label_smoothing} has no effect with loss = '{self.loss}'; "
                             "use loss = 'robust' or 'exo_pair', or leave it out")  # fmt: skip
        if self.loss == "exo_pair" and not self.label_smoothing:
            raise ValueError("loss = 'exo_pair' needs label_smoothing > 0 (the paper uses 0.001)")
        return self
