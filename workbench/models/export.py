"""A policy as a plain Hugging Face folder that transformers and PEFT load without this project."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from gguf import GGMLQuantizationType, quants
from torch import Tensor

from workbench.maths import between
from workbench.models.load import Family, load_full, load_tokenizer
from workbench.policies.checkpoints import ADAPTER_CONFIG, TOKENIZER_FILES, copy_weights
from workbench.tasks import MergeJob, PolicyRef

MATRIX, BLOCK = 2, 32


def export(policy: PolicyRef, output: Path, *, merged: bool) -> None:
    """Write weights, configuration, tokenizer and chat template.

    Args:
        policy: what to export.
        output: an empty folder.
        merged: fold an adapter into its base, so that the folder is a full model; otherwise the adapter is written
            with the path of its base in its configuration. Full weights are copied in both cases.

    Raises:
        PolicyError: the weights cannot be loaded.
        ModelError: the base cannot be loaded.
    """
    if policy.kind == "adapter" and merged:
        _whole(policy).save_pretrained(output)
    else:
        copy_weights(Path(policy.path), output)
    if policy.kind == "adapter" and not merged:
        config = output / ADAPTER_CONFIG
        values = json.loads(config.read_text(encoding="utf-8")) | {"base_model_name_or_path": policy.base_path}
        config.write_text(json.dumps(values, sort_keys=True, indent=2) + "\n", encoding="utf-8")
    _add_tokenizer(policy, output)


def merge(job: MergeJob) -> None:
    """Write a policy as a full model: mixed with another and rounded where the job asks for it.

    A mixture is taken of whole weights, `share` of the policy's and the rest of the other's, so that a line between two
    adapters is straight, which one between their factors is not.

    Raises:
        PolicyError, ModelError: as `export`.
    """
    model = _whole(job.policy)
    with torch.no_grad():
        if job.start:
            start = dict(_whole(job.start).named_parameters())
            for name, tensor in model.named_parameters():  # tied weights once
                tensor.copy_(between(start[name], tensor, 1 - job.share))
        if job.rounded == "bf16":
            model.to(torch.bfloat16)
        elif job.rounded:
            for parameter in model.parameters():
                parameter.copy_(in_blocks(parameter, job.rounded))
    model.save_pretrained(job.output)
    _add_tokenizer(job.policy, Path(job.output))


def in_blocks(weights: Tensor, rounded: Literal["q8_0", "q4_0"]) -> Tensor:
    """Weights as a GGUF file gives them back: blocks of 32 in a row share a scale.

    Args:
        weights: vectors, and matrices whose rows are no whole number of blocks, stay as they are, as GGUF keeps them.
        rounded: eight or four bits (block formats Q8_0 and Q4_0 of ggml).
    """
    kind = GGMLQuantizationType[rounded.upper()]
    if weights.ndim < MATRIX or weights.shape[-1] % BLOCK:
        return weights
    packed = quants.quantize(weights.detach().float().cpu().numpy(), kind)
    return torch.from_numpy(quants.dequantize(packed, kind)).to(weights)


def _add_tokenizer(policy: PolicyRef, output: Path) -> None:
    for name in TOKENIZER_FILES:
        if (file := Path(policy.base_path) / name).is_file():
            shutil.copyfile(file, output / name)
    load_tokenizer(str(output))


def _whole(policy: PolicyRef) -> Any:
    """A policy with nothing beside its own weights, of which nobody else holds any."""
    if policy.kind == "full":
        return load_full(policy.path)
    with Family(policy).using(policy) as model, torch.inference_mode(mode=False), torch.no_grad():
        return model.merge_and_unload(safe_merge=True)
