"""What a folder of weights must hold before it may become a policy. Headers are read, never the weights; no pickle."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from safetensors import SafetensorError, safe_open

from workbench.errors import ModelError, PolicyError, WorkbenchError
from workbench.objects import Entry, entry

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
CHAT_TEMPLATE = "chat_template.jinja"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
TOKENIZER_MODELS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
TOKENIZER_FILES = (
    *TOKENIZER_MODELS, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    CHAT_TEMPLATE, "chat_template.json",
)  # fmt: skip
PREFIX = "base_model.model."
FACTS = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings")
ALSO_CALLED = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "max_position_embeddings": "n_positions"}
"""By what name GPT-2 and models like it say the same."""

Shapes = dict[str, tuple[int, ...]]
"""Shapes of tensors by name."""


class BaseFiles(NamedTuple):
    """What was found in the folder of a base: weight files with `config.json`, and tokenizer files."""

    weights: dict[str, Entry]
    tokenizer: dict[str, Entry]
    facts: dict[str, Any]


def kind_of(folder: Path) -> Literal["full", "adapter"]:
    """Whether a folder holds an adapter or full weights."""
    return "adapter" if any((folder / name).exists() for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)) else "full"


def read_base(folder: Path) -> BaseFiles:
    """Check the folder of a base and hash its files.

    Raises:
        ModelError: no such folder, weights that are pickles, incomplete or damaged, or a missing configuration,
            tokenizer or chat template; names the file and the next action.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; give a Hugging Face model folder, or run `workbench model fetch`")
    config = read_json(folder / "config.json", ModelError)
    shapes = read_shapes(folder, ModelError)
    if not any((folder / name).is_file() for name in TOKENIZER_MODELS):
        raise ModelError(
            f"{folder}: no tokenizer; expected tokenizer.json (or tokenizer.model, vocab.json, …) beside the weights; "
            "copy the tokenizer's files from the model's origin into the folder"
        )
    if not _has_chat_template(folder):
        raise ModelError(
            f"{folder}: no chat template, neither {CHAT_TEMPLATE} nor chat_template in tokenizer_config.json; "
            f"pass a Jinja file: put it into the folder as {CHAT_TEMPLATE}"
        )
    files = {path.name: entry(path) for path in base_files(folder)}
    said = {name: name if name in config else ALSO_CALLED.get(name, "") for name in FACTS}
    facts = {name: config[called] for name, called in said.items() if called in config}
    facts["parameters"] = sum(_size(shape) for shape in shapes.values())
    weights = {name: e for name, e in files.items() if name not in TOKENIZER_FILES}
    return BaseFiles(weights, {name: e for name, e in files.items() if name in TOKENIZER_FILES}, facts)


def base_files(folder: Path) -> list[Path]:
    """Files of a base that its scores depend on: configuration, weights, tokenizer and chat template."""
    named = [folder / name for name in ("config.json", *TOKENIZER_FILES)]
    return [*(path for path in named if path.is_file()), *sorted(folder.glob("*.safetensors"))]


def read_shapes(folder: Path, error: Callable[[str], WorkbenchError]) -> Shapes:
    """Shapes of all tensors in a folder's safetensors files, from the headers.

    Args:
        folder: holds `*.safetensors`.
        error: class of the error raised.

    Raises:
        WorkbenchError: no safetensors, pickled weights instead, a missing shard, or a damaged file.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = sorted(p.name for pattern in PICKLES for p in folder.glob(pattern))
        if pickles:
            raise error(
                f"{folder / pickles[0]}: pickled weights can run code and are refused; expected *.safetensors; "
                "convert with `save_pretrained(..., safe_serialization=True)` where you trust the file"
            )
        raise error(f"{folder}: no weights; expected *.safetensors; save the model with `save_pretrained`")
    for index in folder.glob("*.safetensors.index.json"):
        named = cast("dict[str, str]", read_json(index, error).get("weight_map", {}))
        missing = sorted(set(named.values()) - {f.name for f in files})
        if missing:
            raise error(f"{folder / missing[0]}: missing, though {index.name} names it; copy the missing shard there")
    shapes: Shapes = {}
    for file in files:
        try:
            with cast("Any", safe_open)(file, framework="np") as tensors:
                shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in list(tensors.keys())}
        except (SafetensorError, OSError) as cause:
            raise error(f"{file}: damaged: {cause}; copy it again from where it was trained") from cause
    return shapes


def read_json(path: Path, error: Callable[[str], WorkbenchError]) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        WorkbenchError: the file is missing or holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as cause:
        raise error(f"{path}: missing; copy it from the model's origin or from where it was trained") from cause
    except ValueError as cause:
        raise error(f"{path}: not JSON: {cause}; copy it again from where it was trained") from cause
    if not isinstance(value, dict):
        raise error(f"{path}: holds a {type(value).__name__}, expected a JSON object; copy it again")
    return cast("dict[str, Any]", value)


def check_fits(folder: Path, base: Path) -> None:
    """Check that weights belong to the architecture of a base, by names and shapes of their tensors.

    Raises:
        PolicyError: the folder is incomplete or damaged, or a tensor has no place in the base; names file and tensor.
    """
    if kind_of(folder) == "adapter":
        _check_adapter(folder, base)
    else:
        _check_full(folder, base)


def copy_weights(source: Path, destination: Path) -> None:
    """Copy weights and configuration, and nothing else (optimizer states and training arguments are pickles)."""
    if kind_of(source) == "adapter":
        shutil.copyfile(source / ADAPTER_WEIGHTS, destination / ADAPTER_WEIGHTS)
        shutil.copyfile(source / ADAPTER_CONFIG, destination / ADAPTER_CONFIG)
        normalise_adapter(destination)
        return
    wanted = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")
    for path in (p for pattern in wanted for p in source.glob(pattern)):
        shutil.copyfile(path, destination / path.name)


def normalise_adapter(folder: Path) -> None:
    """Rewrite `adapter_config.json` so that equal adapters have equal bytes on every machine.

    The path of the base goes (lineage knows it), and so does the order of modules, which follows Python's random
    hashes.

    Raises:
        PolicyError: the file is missing or damaged.
    """
    path = folder / ADAPTER_CONFIG
    config: dict[str, Any] = {**read_json(path, PolicyError), "base_model_name_or_path": "", "inference_mode": True}
    for name in ("target_modules", "modules_to_save", "exclude_modules"):
        if isinstance(config.get(name), list):
            config[name] = sorted(config[name])
    path.write_text(json.dumps(config, sort_keys=True, indent=2) + "\n", encoding="utf-8")


def _check_adapter(folder: Path, base: Path) -> None:
    config = read_json(folder / ADAPTER_CONFIG, PolicyError)
    if config.get("peft_type") != "LORA":
        raise PolicyError(
            f"{folder / ADAPTER_CONFIG}: peft_type is {config.get('peft_type')!r}, expected 'LORA'; merge the adapter "
            "into its base and adopt the full weights"
        )
    weights = folder / ADAPTER_WEIGHTS
    if not weights.is_file():
        read_shapes(folder, PolicyError)
        raise PolicyError(f"{weights}: missing; copy it from where the adapter was trained")
    expected = _with_tied_head(read_shapes(base, ModelError), base)
    for name, shape in read_shapes(folder, PolicyError).items():
        _check_adapter_tensor(weights, name, shape, expected, transposed=bool(config.get("fan_in_fan_out")))


def _check_adapter_tensor(weights: Path, name: str, shape: tuple[int, ...], base: Shapes, *, transposed: bool) -> None:
    module, _, part = name.removeprefix(PREFIX).partition(".lora_")
    whole = module.replace(".modules_to_save.", ".").replace(".base_layer.", ".")  # PEFT saves these beside adapters
    target = _stored_as(f"{module}.weight" if part else whole, base)
    if target not in base:
        raise PolicyError(
            f"{weights}: tensor {name} adapts {target}, which the base does not have; give the parent it was trained on"
        )
    wanted = base[target][::-1] if transposed else base[target]
    fits = {
        "A": lambda: shape[-1] == wanted[-1],
        "B": lambda: shape[0] == wanted[0],
        "embedding_A": lambda: shape[-1] == wanted[0],
        "embedding_B": lambda: shape[0] == wanted[-1],
    }.get(part.split(".")[0], lambda: part != "" or shape == wanted)
    if not fits():
        raise PolicyError(
            f"{weights}: tensor {name} has shape {shape}, which does not fit {target} {base[target]} of the base; "
            "give the parent it was trained on"
        )


def _stored_as(name: str, base: Shapes) -> str:
    """The name a base's files have for a module's tensor; some leave the model's own prefix out."""
    return name if name in base else name.partition(".")[2] if name.partition(".")[2] in base else name


def _check_full(folder: Path, base: Path) -> None:
    found, expected = read_shapes(folder, PolicyError), read_shapes(base, ModelError)
    read_json(folder / "config.json", PolicyError)
    for name, shape in expected.items():
        if name == "lm_head.weight" and name not in found:
            continue  # tied to the embedding, saved once
        if found.get(name) != shape:
            raise PolicyError(
                f"{folder}: tensor {name} has shape {found.get(name)}, expected {shape} as in the base; "
                "give the parent it was trained on, or add it as a base of its own"
            )


def _with_tied_head(shapes: Shapes, base: Path) -> Shapes:
    """A base that ties its head saves the embedding only; an adapter may still name the head."""
    if "lm_head.weight" in shapes or not read_json(base / "config.json", ModelError).get("tie_word_embeddings"):
        return shapes
    embedding = next((s for name, s in shapes.items() if name.endswith(("embed_tokens.weight", "wte.weight"))), None)
    return shapes if embedding is None else shapes | {"lm_head.weight": embedding}


def _has_chat_template(folder: Path) -> bool:
    if (folder / CHAT_TEMPLATE).is_file() or (folder / "chat_template.json").is_file():
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and bool(read_json(config, ModelError).get("chat_template"))


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
