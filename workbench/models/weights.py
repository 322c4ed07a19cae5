"""The weights that training changes, of this policy and of others, and the model speaking as another for a moment."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import load_file
from torch import Tensor

from workbench.errors import PolicyError
from workbench.models.load import TRAINED
from workbench.policies.checkpoints import ADAPTER_WEIGHTS
from workbench.tasks import PolicyRef

Weights = dict[str, Tensor]
"""Trained parameters of a model by their names in it, detached."""


def trained_weights(model: Any) -> Weights:
    """A copy of what training has made so far."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def set_weights(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a model, in place."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])


def weights_of(policy: PolicyRef, model: Any) -> Weights:
    """What another policy has in place of a model's trained parameters; a base has adapters that add nothing.

    Raises:
        PolicyError: the policy has other parameters.
    """
    mine = {name: p for name, p in model.named_parameters() if p.requires_grad}
    adapted = any(ADAPTED in name for name in mine)
    if adapted and policy.digest == policy.base and all(ADAPTED in name for name in mine):
        return {name: torch.zeros_like(p) for name, p in mine.items()}
    if adapted != (policy.kind == "adapter"):
        kinds = ("an adapter", "full weights") if adapted else ("full weights", "an adapter")
        raise PolicyError(f"policy {policy.digest[:12]} is {kinds[1]}, the model in training {kinds[0]}; its weights "
                          "cannot stand in for the model's; choose policies of one kind")  # fmt: skip
    folder = Path(policy.path)
    files = [folder / ADAPTER_WEIGHTS] if adapted else sorted(folder.glob("*.safetensors"))
    stored = {name: tensor for file in files for name, tensor in load_file(file, device=str(model.device)).items()}
    known = {name: name.replace(f".{TRAINED}.", ".") for name in mine}
    found = {name: stored.get(each) for name, each in known.items()}
    wrong = [name for name, tensor in found.items() if tensor is None or tensor.shape != mine[name].shape]
    if adapted:
        wrong += sorted(stored.keys() - set(known.values()))
    if wrong:
        raise PolicyError(
            f"policy {policy.digest[:12]}: {wrong[0]} does not fit the model in training ({len(wrong)} such weights); its "
            "weights cannot be compared with those in training; choose policies of one rank and one set of layers"
        )
    factor = (
        _scaling(LoraConfig.from_pretrained(str(folder))) / _scaling(model.peft_config[TRAINED]) if adapted else 1.0
    )
    return {
        name: tensor.to(mine[name].dtype) * (factor if ".lora_B." in name else 1.0)
        for name, tensor in found.items()
        if tensor is not None
    }


ADAPTED = ".lora_"
"""In the names of an adapter's parameters."""


def _scaling(config: Any) -> float:
    """What an adapter multiplies its product by."""
    return config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r)


@contextmanager
def speaking_as(model: Any, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """The model with other weights, without gradients and without a copy, for the length of a block.

    What was computed before with its own weights keeps its way back.
    """
    own = {name: (p, p.data) for name, p in model.named_parameters() if name in weights}
    try:
        for name, (parameter, _) in own.items():
            parameter.data = weights[name]
        with torch.no_grad():
            yield
    finally:
        for parameter, data in own.values():
            parameter.data = data
