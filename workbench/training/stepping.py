"""Every optimizer step merged with what earlier rounds did: online merging (Lu et al., arXiv 2405.17931)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft.utils.merge_utils import calculate_majority_sign_mask
from safetensors.torch import load_file, save_file
from torch import Tensor

from workbench.config import MergingSettings
from workbench.models.weights import Weights, trained_weights
from workbench.training.merging import largest


class MergedSteps:
    """After each step, theta <- before + (1 - share) F(step) + share F(task), F as `settings` say.

    The optimizer's moments are of the whole gradients, as published. An adapter has its task vector in B alone, B_0 - 0, which
    moves the product B A along B_0 A: its A begins at random, and is no vector from the base.

    Args:
        model: in training, at the weights it starts from.
        base: the base's weights, by the same names.
        settings: what is dropped, and how much is added.
        seed: of what is dropped.
    """

    FILE = "merged-steps.safetensors"

    def __init__(self, model: Any, base: Mapping[str, Tensor], settings: MergingSettings, seed: int) -> None:
        self._model, self._settings, self._seed, self._steps = model, settings, seed, 0
        self._before = trained_weights(model)
        self._task: Weights = {name: at - base[name] for name, at in self._before.items() if ".lora_A." not in name}

    def after_step(self) -> None:
        """Merge the step just taken."""
        self._steps += 1
        generator = torch.Generator(self._model.device).manual_seed(self._seed * 1_000_003 + self._steps)
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                if name in self._before:
                    before = self._before[name]
                    task = self._task.get(name, torch.zeros(()).to(before))
                    parameter.copy_(before + merged(parameter - before, task, self._settings, generator))
                    before.copy_(parameter)

    def save(self, folder: Path) -> None:
        """Write the weights of the last step and how many were taken."""
        save_file(self._before, folder / self.FILE)
        (folder / "merged-steps.json").write_text(json.dumps(self._steps), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Read them."""
        self._before = load_file(folder / self.FILE, device=str(self._model.device))
        self._steps = json.loads((folder / "merged-steps.json").read_text(encoding="utf-8"))


def merged(step: Tensor, task: Tensor, settings: MergingSettings, generator: torch.Generator) -> Tensor:
    """OnDARE: both with numbers dropped at random, not rescaled. OnTIES: the largest of both where they have the sign of their sum.

    Args:
        step: of one parameter.
        task: of the same shape, or zero.
        settings: which of the two, and their numbers.
        generator: of what OnDARE drops.
    """
    both = torch.stack([step, task.expand_as(step)])
    if settings.kind == "dare":
        both = both * (torch.rand(both.shape, generator=generator, device=both.device) < settings.density)
    else:
        both = torch.stack([largest(each, settings.density) for each in both])
        both = both * calculate_majority_sign_mask(both)
    return (1 - settings.share) * both[0] + settings.share * both[1]
