"""Training a reward model on the loop of the pair trainer: its checkpoints, memory, stops and checks are those of a round."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch import Tensor
from transformers import PrinterCallback

from preference_data.records import Pair
from preference_data.versions import load_version
from workbench.errors import WiringError
from workbench.maths.reward_losses import bradley_terry, off_centre
from workbench.models.forward import Layout, Rows, collate
from workbench.models.load import load_tokenizer, save_adapter, trainable
from workbench.models.numerics import apply_numerics, give_back_memory
from workbench.models.packed import hold_in_half
from workbench.models.reward_model import HEAD_FILE, RewardHead, ends, head_for, save_head
from workbench.models.sharing import layout_of
from workbench.models.tokens import Encoded, encode_pair, pad_id
from workbench.reward_tasks import RewardJob
from workbench.tasks import Report
from workbench.training.batches import PairCollator, batch_tokens
from workbench.training.objective import Parts
from workbench.training.optimise import config_of, fits_kept, train_to_end
from workbench.training.trainer import AnchoredDPOTrainer
from workbench.training.watch import require_finite_weights

STRONGEST = 3


def train_reward_model(job: RewardJob, report: Report) -> None:
    """Train a reward model and write adapter and head into `job.output`.

    Killed and called again with the same job it goes on from its newest verified checkpoint.

    Raises:
        WiringError: the version has no training pair short enough.
        NumericsError: a loss, gradient or weight is not finite.
        StopRequested: `report` answered True; a checkpoint was written.
    """
    tokenizer = load_tokenizer(job.base.base_path)
    rows = _rows(load_version(Path(job.version.path)).pairs("train"), tokenizer, job)
    with apply_numerics(job.numerics):
        torch.manual_seed(job.training.seed)
        model = trainable(job.base, job.training, job.numerics)
        layout = layout_of(model)
        if job.numerics.dtype == "bfloat16":
            hold_in_half(model, training=True)
        head = head_for(model)
        model.add_module("reward_head", head)  # so that the optimizer finds it
        fits = fits_kept(job, model.train(), _sizes(rows, layout, job), layout)
        collator = RewardCollator(pad_id(tokenizer), layout=layout, tokens=fits.tokens)
        trainer = RewardTrainer(
            args=config_of(job, len(rows), job.training.batch_size, job.training.accumulation),
            train_dataset=Dataset.from_list(rows), model=model, processing_class=tokenizer, data_collator=collator,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.head, trainer.centre, trainer.pairs = head, job.settings.centre, collator
        train_to_end(trainer, job, [CarriedHead(head, job.training.max_length)], report)
        require_finite_weights(model)
        save_adapter(model, Path(job.output))
        save_head(head, Path(job.output), max_length=job.training.max_length)
        del trainer, model
    give_back_memory()


class RewardTrainer(AnchoredDPOTrainer):
    """Pairs by the Bradley-Terry likelihood of their rewards.

    Attributes:
        head: makes rewards of states.
        centre: weight of what holds rewards near zero.
    """

    head: RewardHead
    centre: float

    def measure(self, model: Any, inputs: dict[str, Any]) -> tuple[Parts, Tensor]:
        """The objective of one pass, and by how much the chosen answers are ahead (detached), shape (pairs,)."""
        rows = Rows(**{name: inputs[name] for name in Rows._fields}).on(model.device)
        weight, margin = (inputs[name].to(model.device) for name in ("weight", "margin"))
        chosen, rejected = self.head(ends(model, rows)).chunk(2)
        parts = {
            "preference": (weight * bradley_terry(chosen, rejected, margin)).mean(),
            "centre": self.centre * off_centre(chosen, rejected).mean(),
        }
        total = torch.stack(list(parts.values())).sum()
        return Parts(total, {name: p.detach() for name, p in parts.items()}), (chosen - rejected).detach()


class RewardCollator(PairCollator):
    """Lays out pairs that have a margin in place of a reference."""

    def at_once(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Lay out pairs for one pass."""
        sides = [Encoded(tuple(r["prompt"]), tuple(r[side])) for side in ("chosen", "rejected") for r in rows]
        laid_out = collate(sides, pad_id=self._pad_id, layout=self.layout)
        numbers = {name: torch.tensor([r[name] for r in rows], dtype=torch.float32) for name in ("weight", "margin")}
        return {**laid_out._asdict(), **numbers}


class CarriedHead:
    """The head, which a checkpoint of the adapter does not hold."""

    def __init__(self, head: RewardHead, max_length: int) -> None:
        self._head, self._max_length = head, max_length

    def after_step(self) -> None:
        """Nothing: the optimizer moves it."""

    def save(self, folder: Path) -> None:
        """Write it into a checkpoint."""
        save_head(self._head, folder, max_length=self._max_length)

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint."""
        self._head.load_state_dict(load_file(folder / HEAD_FILE, device=str(self._head.weight.device)))


def _rows(pairs: Sequence[Pair], tokenizer: Any, job: RewardJob) -> list[dict[str, Any]]:
    """Pairs in tokens, epoch after epoch in permuted order."""
    found: list[dict[str, Any]] = []
    for pair in sorted(pairs, key=lambda p: p.key):
        encoded = encode_pair(tokenizer, pair, max_length=job.training.max_length)
        if encoded:
            margin = job.settings.margin * (pair.strength or 0.0) / STRONGEST
            found.append(
                {"prompt": list(encoded.chosen.prompt), "chosen": list(encoded.chosen.completion),
                 "rejected": list(encoded.rejected.completion), "weight": pair.weight, "margin": margin}
            )  # fmt: skip
    if not found:
        raise WiringError(
            f"version {job.version.digest[:12]} has no training pair shorter than training.max_length = "
            f"{job.training.max_length} tokens; raise it"
        )
    draw = torch.Generator().manual_seed(job.training.seed)
    turns = (torch.randperm(len(found), generator=draw).tolist() for _ in range(job.training.epochs))
    return [found[i] for turn in turns for i in turn]


def _sizes(rows: Sequence[dict[str, Any]], layout: Layout, job: RewardJob) -> list[int]:
    """Tokens of each batch."""
    size = job.training.batch_size
    return [batch_tokens(rows[i : i + size], layout) for i in range(0, len(rows), size)]
