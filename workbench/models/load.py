"""Loading policies: safetensors only, no remote code, several adapters over one base."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedTokenizerBase

from preference_data.records import digest
from workbench.config import NumericsSettings, TrainingSettings
from workbench.errors import ModelError, PolicyError
from workbench.models.adapted import use_one_product
from workbench.models.attention import use_pieces
from workbench.models.forward import TOKENS_PER_BATCH, Layout, Rows, batches_by_length, collate
from workbench.models.numerics import apply_numerics, keep_freed_memory, require_device
from workbench.models.packed import hold_in_half
from workbench.models.sharing import layout_of, needs_plain_rows
from workbench.models.tokens import Encoded, pad_id
from workbench.policies.checkpoints import normalise_adapter
from workbench.tasks import PolicyRef

TRAINED = "default"
"""Name of the adapter being trained; TRL accepts no other."""
MOST_ADAPTERS = 16
"""Adapters kept beside each other over one base; the one not used for longest goes first."""

PLAIN = NumericsSettings()


def base_of(policy: PolicyRef) -> PolicyRef:
    """The base of a policy's lineage."""
    return policy._replace(digest=policy.base, kind="full", path=policy.base_path)


def config_of(path: str) -> Any:
    """What a model's folder says of it, without its weights."""
    return AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)


def load_full(path: str, numerics: NumericsSettings = PLAIN) -> Any:
    """A causal language model in float32, or in four bits where asked for, in evaluation mode.

    Raises:
        ModelError: the folder cannot be loaded, or the device is not there; says what to do.
    """
    require_device(numerics)
    keep_freed_memory()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=torch.float32,
            quantization_config=_four_bits(numerics),
            device_map=None if numerics.device == "cpu" else {"": numerics.device},
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{path}: cannot load the model: {error}; expected a Hugging Face folder with config.json and "
            "safetensors weights"
        ) from error
    if not needs_plain_rows(model.config):
        use_pieces(model)
    # A slice of hidden states, such as the last position, is not contiguous; torch then multiplies it with one copy of
    # the whole LM head per row instead of folding the rows into one product.
    head: Any = model.get_output_embeddings()
    head.register_forward_pre_hook(_contiguous)
    return model.eval()


def _four_bits(numerics: NumericsSettings) -> BitsAndBytesConfig | None:
    if numerics.base == "whole":
        return None
    if find_spec("bitsandbytes") is None:
        raise ModelError("numerics.base = 'nf4' needs the package bitsandbytes: pip install bitsandbytes")
    computed: Any = getattr(torch, numerics.dtype)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=computed)


def _contiguous(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in inputs)


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a base, with padding set up for batches.

    Raises:
        ModelError: there is no tokenizer, or it has no chat template.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: no tokenizer: {error}; put tokenizer.json beside the weights") from error
    if not tokenizer.chat_template:
        raise ModelError(f"{path}: the tokenizer has no chat template; put a chat_template.jinja into the folder")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def trainable(parent: PolicyRef, settings: TrainingSettings, numerics: NumericsSettings = PLAIN) -> Any:
    """The parent, ready to be trained into the child.

    A fresh adapter starts with B = 0, so it equals its base exactly; an adapter parent is continued.

    Raises:
        PolicyError: `method` does not fit the parent, or its rank or layers differ from the plan's.
    """
    if settings.method == "full":
        if parent.kind != "full":
            raise PolicyError(
                f"training.method = 'full', but parent {parent.digest[:12]} is an adapter; use method = 'lora', "
                "or export the parent merged and adopt it as a full policy"
            )
        return load_full(parent.path, numerics).train()
    if parent.kind == "full" and parent.digest != parent.base:
        raise PolicyError(
            f"training.method = 'lora', but parent {parent.digest[:12]} has full weights of its own, which its adapter would be lost "
            "without; use method = 'full', or export the parent and begin a lineage over it"
        )
    if parent.kind == "full":
        base = load_full(parent.path, numerics)
        torch.manual_seed(settings.seed)
        lora = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=0.0,
            target_modules="all-linear",
            exclude_modules=_below(base, settings.upper_layers),
            task_type="CAUSAL_LM",
        )
        adapted: Any = get_peft_model(base, lora, adapter_name=TRAINED)
        use_one_product(adapted)
        return adapted.train()
    model = _with_adapter(load_full(parent.base_path, numerics), parent, TRAINED, train=True)
    adapter = model.peft_config[TRAINED]
    if adapter.r != settings.rank:
        raise PolicyError(f"training.rank = {settings.rank}, but parent {parent.digest[:12]} has rank {adapter.r}; "
                          f"set training.rank = {adapter.r}")  # fmt: skip
    if adapter.lora_alpha != settings.alpha:
        raise PolicyError(f"training.alpha = {settings.alpha}, but parent {parent.digest[:12]} has alpha {adapter.lora_alpha}; "
                          f"set training.alpha = {adapter.lora_alpha}")  # fmt: skip
    if adapter.exclude_modules != _below(model, settings.upper_layers):
        raise PolicyError(f"training.upper_layers = {settings.upper_layers}, but parent {parent.digest[:12]} was made "
                          "with another number; set the one of the round that made it")  # fmt: skip
    return model.train()


def _below(model: Any, upper: int) -> str | None:
    """What PEFT is to leave out so that only the uppermost layers are adapted: a pattern of module names.

    Raises:
        PolicyError: the model has fewer layers.
    """
    layers: int = model.config.num_hidden_layers
    if upper > layers:
        raise PolicyError(f"training.upper_layers = {upper}, but the base has {layers} layers; give at most {layers}")
    if upper in {0, layers}:
        return None
    # The first number in a module's name is its layer; later ones count experts and the like.
    return rf"\D*\.({'|'.join(map(str, range(layers - upper)))})\..*"


class Family:
    """Policies over one base, loaded once and switched by reference. Not for training.

    A full policy other than the base is loaded on its own and kept until another is asked for.

    Args:
        base: policy 0 of the lineage.
        numerics: the precision they will be used in, and where.
    """

    def __init__(self, base: PolicyRef, numerics: NumericsSettings = PLAIN) -> None:
        self.base, self._numerics = base, numerics
        self.tokenizer = load_tokenizer(base.base_path)
        self.layout: Layout
        self._model, self.layout = self._loaded(base.base_path)
        self._peft: Any = None
        self._full: tuple[str, Any] | None = None
        self._loaded_adapters: dict[str, None] = {}

    @contextmanager
    def using(self, policy: PolicyRef) -> Iterator[Any]:
        """The model behaving as `policy`, for the length of a block and without gradients.

        Raises:
            PolicyError: the policy sits on another base, or its adapter is damaged.
        """
        if policy.base != self.base.base:
            raise PolicyError(
                f"policy {policy.digest[:12]} sits on base {policy.base[:12]}, not on {self.base.base[:12]}; "
                "anchors and parent must share one base"
            )
        with torch.inference_mode():
            if policy.kind == "full":
                if policy.digest != self.base.base:
                    yield self._full_model(policy)
                elif self._peft is None:
                    yield self._model
                else:
                    with self._peft.disable_adapter():
                        yield self._peft
            else:
                yield self._adapted(policy)

    def collate(self, examples: Sequence[Encoded]) -> Rows:
        """Lay examples out for a forward pass of these policies."""
        return collate(examples, pad_id=pad_id(self.tokenizer), layout=self.layout)

    def batches(self, examples: Sequence[Encoded], *, size: int, tokens: int = TOKENS_PER_BATCH) -> Iterator[list[int]]:
        """Indices of examples in batches for `collate`, of at most `size` and `tokens`, longest first."""
        return batches_by_length(examples, size=size, tokens=tokens, layout=self.layout)

    def _full_model(self, policy: PolicyRef) -> Any:
        if self._full is None or self._full[0] != policy.path:
            self._full = None
            self._full = (policy.path, self._loaded(policy.path)[0])
        return self._full[1]

    def _loaded(self, path: str) -> tuple[Any, Layout]:
        model = load_full(path, self._numerics)
        model.requires_grad_(requires_grad=False)
        layout = layout_of(model)
        if self._numerics.dtype == "bfloat16":
            with apply_numerics(self._numerics):  # what is laid out is tried with the threads it is used with
                hold_in_half(model)
        return model, layout

    def _adapted(self, policy: PolicyRef) -> Any:
        name = digest([policy.digest, policy.path])[:16]
        if self._peft is None:
            self._peft = _with_adapter(self._model, policy, name, train=False)
        elif name not in self._peft.peft_config:
            self._add_adapter(policy, name)
        self._loaded_adapters.pop(name, None)
        self._loaded_adapters[name] = None
        self._peft.set_adapter(name, inference_mode=True)
        while len(self._loaded_adapters) > MOST_ADAPTERS:
            oldest = next(iter(self._loaded_adapters))
            del self._loaded_adapters[oldest]
            self._peft.delete_adapter(oldest)
        return self._peft.eval()

    def _add_adapter(self, policy: PolicyRef, name: str) -> None:
        try:
            with torch.inference_mode(mode=False):
                self._peft.load_adapter(policy.path, adapter_name=name, is_trainable=False)
        except Exception as error:
            # PEFT makes the adapter before it reads it: half of one would speak as the base.
            if name in self._peft.peft_config:
                self._peft.delete_adapter(name)
            raise _damaged(policy, error) from error
        use_one_product(self._peft)


def family_of(policy: PolicyRef, numerics: NumericsSettings) -> Family:
    """The family of a policy's lineage; the last one stays loaded, because the steps of a round follow each other."""
    return _family(base_of(policy), numerics.model_dump_json())


@lru_cache(maxsize=1)
def _family(root: PolicyRef, numerics: str) -> Family:
    return Family(root, NumericsSettings.model_validate_json(numerics))


def _with_adapter(model: Any, policy: PolicyRef, name: str, *, train: bool) -> Any:
    try:
        with torch.inference_mode(mode=False):
            adapted = PeftModel.from_pretrained(
                model, policy.path, adapter_name=name, is_trainable=train, use_safetensors=True
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise _damaged(policy, error) from error
    use_one_product(adapted)
    return adapted


def _damaged(policy: PolicyRef, error: Exception) -> PolicyError:
    return PolicyError(
        f"{policy.path}: cannot load adapter {policy.digest[:12]}: {error}; "
        "restore the folder from a backup, or make the policy again"
    )


def save_adapter(model: Any, output: Path) -> None:
    """Write the trained adapter alone, with a config that is the same on every machine and in every process."""
    model.save_pretrained(output, selected_adapters=[TRAINED], save_embedding_layers=False)
    (output / "README.md").unlink(missing_ok=True)
    normalise_adapter(output)
