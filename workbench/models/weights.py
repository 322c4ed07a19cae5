"""The weights that training changes, of this policy and of others, and the model speaking as another for a moment."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
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
    is_adapter = any(".lora_" in name for name in mine)
    if policy.kind == "full" and is_adapter:
        return {name: torch.zeros_like(p) for name, p in mine.items()}
    folder = Path(policy.path)
    files = [folder / ADAPTER_WEIGHTS] if policy.kind == "adapter" else sorted(folder.glob("*.safetensors"))
    stored = {name: tensor for file in files for name, tensor in load_file(file, device=str(model.device)).items()}
    found = {name: stored.get(name.replace(f".{TRAINED}.", ".")) for name in mine}
    for name, tensor in found.items():
        if tensor is None or tensor.shape != mine[name].shape:
            shape = "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
            raise PolicyError(
                f"policy {policy.digest[:12]}: {name} is {shape}, expected {tuple(mine[name].shape)}; its weights cannot "
                "be compared with those in training; choose policies of one rank and one set of layers"
            )
    return {name: tensor.to(mine[name].dtype) for name, tensor in found.items() if tensor is not None}


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
