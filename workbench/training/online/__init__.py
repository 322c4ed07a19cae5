"""Objectives of fresh answers, one file each."""

from collections.abc import Callable, Mapping

from workbench.config import OnlineSettings
from workbench.training.online.best_of import best_of
from workbench.training.online.distil import distil
from workbench.training.online.drawn import Drawn, Loss
from workbench.training.online.grpo import grpo
from workbench.training.online.online_dpo import online_dpo
from workbench.training.online.rloo import rloo

__all__ = ["OBJECTIVES", "Drawn", "Loss"]

OBJECTIVES: Mapping[str, Callable[[Drawn, OnlineSettings], Loss]] = {
    "grpo": grpo, "rloo": rloo, "dpo": online_dpo, "best": best_of, "distil": distil,
}  # fmt: skip
"""By the name settings have for them."""
