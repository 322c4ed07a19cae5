"""The TRL skin: a DPO trainer whose loss is ours.

TRL gives the loop, the optimizer, schedules, checkpoints and resumption. Tokenising, the reference and the loss are
the workbench's, so three methods are overridden; a test pins their signatures.
"""

from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl.trainer.dpo_trainer import DPOTrainer

from workbench.config import ObjectiveSettings
from workbench.maths import PairLogps
from workbench.models.forward import completion_logps
from workbench.training.batches import batch_of
from workbench.training.objective import Parts, objective


class AnchoredDPOTrainer(DPOTrainer):
    """DPO with cached anchors as the reference, per-pair weights and a loss from `workbench.maths`.

    Set `objective_settings` before the first step.
    """

    objective_settings: ObjectiveSettings

    def _prepare_dataset(self, dataset: Dataset, processing_class: Any, args: Any, dataset_name: str) -> Dataset:
        # Rows arrive tokenised, exactly as they were scored.
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        # The reference is the geometric mean of cached anchor scores, already in the rows.
        return dataset

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool) -> Tensor:  # noqa: FBT001
        parts, margin = self.measure(model, inputs)
        log = self._metrics["train" if model.training else "eval"]
        for name, value in parts.parts.items():
            log[f"objective/{name}"].append(value.item())
        log["rewards/margins"].append(margin.mean().item())
        log["rewards/accuracies"].append((margin > 0).float().mean().item())
        return parts.total

    def measure(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Parts, Tensor]:
        """The objective of one batch, and the pairs' reward margins (detached), shape (pairs,)."""
        batch = batch_of(inputs)
        policy = PairLogps(*completion_logps(model, batch.rows).chunk(2))
        parts = objective(
            policy,
            batch.reference,
            lengths=batch.lengths,
            weights=batch.weights,
            settings=self.objective_settings,
        )
        margin = self.objective_settings.beta * (policy.margin - batch.reference.margin)
        return parts, margin.detach()


def policy_logps(trainer: AnchoredDPOTrainer, inputs: dict[str, Tensor]) -> PairLogps:
    """Log-probs of the policy being trained on one batch, without gradient; for the wiring proof."""
    with torch.no_grad(), trainer.compute_loss_context_manager():
        return PairLogps(*completion_logps(trainer.model, batch_of(inputs).rows).chunk(2))
