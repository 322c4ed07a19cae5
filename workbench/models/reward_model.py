"""A reward model: an adapter over a base, and a linear head that reads the state in which an answer ends."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from workbench.config import NumericsSettings
from workbench.errors import PolicyError
from workbench.models.forward import Rows, completion_states
from workbench.models.head import DirectHead
from workbench.models.load import family_of
from workbench.models.numerics import apply_numerics
from workbench.models.tokens import Encoded
from workbench.policies.checkpoints import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from workbench.tasks import PolicyRef

HEAD_FILE = "reward_head.safetensors"
HEAD_RATE = 10.0
"""What a head's weights are multiplied by: it starts at nothing, and so moves as if its learning rate were as many times
the adapter's."""
LIKE = ("r", "lora_alpha", "target_modules", "exclude_modules", "use_rslora", "peft_type", "task_type")
"""What adapters must share to be averaged."""


class RewardHead(nn.Module):
    """A direction in the space of states. It starts at zero, so that every answer is worth the same.

    Args:
        size: of a state.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, states: Tensor) -> Tensor:
        """Rewards, float32, shape (answers,), of states of shape (answers, size)."""
        return (states.float() * self.weight).sum(-1) * HEAD_RATE


def head_for(model: Any) -> RewardHead:
    """A fresh head for what `ends` gives: a model whose LM head cannot be called directly gives logits."""
    direct = isinstance(model.get_output_embeddings(), DirectHead)
    config = model.config.get_text_config(decoder=True)
    return RewardHead(config.hidden_size if direct else config.vocab_size).to(model.device)


def ends(model: Any, rows: Rows) -> Tensor:
    """The state that predicts each answer's last token, which is the template's where the answer ended; shape (answers, size)."""
    last = rows.example.bincount().cumsum(0) - 1
    return completion_states(model, rows).states[last.to(model.device)]


class RewardModel:
    """A reward model in use.

    Args:
        ref: its folder has an adapter and a head.
        numerics: precision and threads.
        batch_size: answers of one forward pass.

    Attributes:
        max_length: tokens of prompt and answer that it was trained to read.

    Raises:
        PolicyError: the folder has no head, or no adapter that fits the base.
    """

    def __init__(self, ref: PolicyRef, numerics: NumericsSettings, *, batch_size: int = 32) -> None:
        file = Path(ref.path) / HEAD_FILE
        if not file.is_file():
            raise PolicyError(f"{file}: missing, so this is no reward model; train one with `workbench rewards train`")
        self._ref, self._numerics, self._size = ref, numerics, batch_size
        self._family = family_of(ref, numerics)
        self.tokenizer = self._family.tokenizer
        weight, self.max_length = _read_head(file)
        self._head = RewardHead(len(weight))
        self._head.load_state_dict({"weight": weight})

    def __call__(self, answers: Sequence[Encoded]) -> list[float]:
        """Rewards of answers, in their order."""
        found = [0.0] * len(answers)
        with apply_numerics(self._numerics), self._family.using(self._ref) as model:
            head = self._head.to(model.device)
            for batch in self._family.batches(answers, size=self._size):
                rows = self._family.collate([answers[i] for i in batch]).on(model.device)
                for i, value in zip(batch, head(ends(model, rows)).tolist(), strict=True):
                    found[i] = value
        return found


def save_head(head: RewardHead, folder: Path, *, max_length: int) -> None:
    """Write a head, and how many tokens its model reads."""
    _write_head(head.weight.detach().cpu().contiguous(), folder / HEAD_FILE, max_length)


def _write_head(weight: Tensor, file: Path, max_length: int) -> None:
    save_file({"weight": weight}, file, {"max_length": str(max_length)})


def _read_head(file: Path) -> tuple[Tensor, int]:
    with safe_open(file, framework="pt") as opened:
        return opened.get_tensor("weight"), int((opened.metadata() or {})["max_length"])


def average(models: Sequence[PolicyRef], output: Path) -> None:
    """The reward model whose weights are the mean of some (WARM, arXiv 2401.12187), exactly: their adapters side by side.

    Args:
        models: over one base, with adapters alike but for their weights.
        output: an empty folder.

    Raises:
        PolicyError: they sit on several bases, or their adapters differ in shape.
    """
    folders = [Path(model.path) for model in models]
    configs = [json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")) for folder in folders]
    shapes = [{name: config.get(name) for name in LIKE} for config in configs]
    if len({model.base for model in models}) > 1 or any(shape != shapes[0] for shape in shapes):
        raise PolicyError("reward models are averaged over one base and with adapters of one shape; train them with the same "
                          "training.rank, alpha and upper_layers")  # fmt: skip
    count, weights = len(models), [load_file(folder / ADAPTER_WEIGHTS) for folder in folders]
    # (1/n) sum of B A = [B B …]/n [A; A; …]: the rank is n times as large and the scaling alpha/r stays.
    joined = {
        name: torch.cat(
            [one[name] / (count if ".lora_B." in name else 1) for one in weights], dim=int(".lora_B." in name)
        )
        for name in weights[0]
    }
    save_file(
        {name: tensor.contiguous() for name, tensor in joined.items()}, output / ADAPTER_WEIGHTS, {"format": "pt"}
    )
    grown = configs[0] | {"r": count * configs[0]["r"], "lora_alpha": count * configs[0]["lora_alpha"]}
    (output / ADAPTER_CONFIG).write_text(json.dumps(grown, sort_keys=True, indent=2) + "\n", encoding="utf-8")
    heads = [_read_head(folder / HEAD_FILE) for folder in folders]
    _write_head(torch.stack([w for w, _ in heads]).mean(0), output / HEAD_FILE, min(length for _, length in heads))
