"""A policy as a plain Hugging Face folder that transformers and PEFT load without this project."""

import json
import shutil
from pathlib import Path

from workbench.models.load import Family, load_tokenizer
from workbench.policies.checkpoints import ADAPTER_CONFIG, TOKENIZER_FILES, copy_weights
from workbench.tasks import PolicyRef


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
        _merge(policy, output)
    else:
        copy_weights(Path(policy.path), output)
    if policy.kind == "adapter" and not merged:
        config = output / ADAPTER_CONFIG
        values = json.loads(config.read_text(encoding="utf-8")) | {"base_model_name_or_path": policy.base_path}
        config.write_text(json.dumps(values, sort_keys=True, indent=2) + "\n", encoding="utf-8")
    for name in TOKENIZER_FILES:
        if (file := Path(policy.base_path) / name).is_file():
            shutil.copyfile(file, output / name)
    load_tokenizer(str(output))


def _merge(policy: PolicyRef, output: Path) -> None:
    with Family(policy).using(policy) as model:
        model.merge_and_unload(safe_merge=True).save_pretrained(output)
