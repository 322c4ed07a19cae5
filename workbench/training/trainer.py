"""The TRL skin: a DPO trainer whose loss is ours.

TRL gives the loop, the optimizer, schedules, checkpoints and resumption. Tokenising, the reference and the loss are
the workbench's, so four methods are overridden; a test pins their signatures.
"""

from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl.trainer.dpo_trainer import DPOTrainer

from workbench.config import ObjectiveSettings
from workbench.maths import PairLogps
from workbench.models.forward import completion_logps
from workbench.training.batches import PairCollator, batch_of
from workbench.training.objective import Parts, objective


class AnchoredDPOTrainer(DPOTrainer):
    """DPO with cached anchors as the reference, per-pair weights and a loss from `workbench.maths`.

    Set `objective_settings` and `pairs`, which lays them out, before the first step.
    """

    objective_settings: ObjectiveSettings
    pairs: PairCollator

    def _prepare_dataset(self, dataset: Dataset, processing_class: Any, args: Any, dataset_name: str) -> Dataset:
        # Rows arrive tokenised, exactly as they were scored.
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        # The reference is the geometric mean of cached anchor scores, already in the rows.
        return dataset

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Tensor:
        """The loss of one batch, a pass at a time: gradients add up to the batch's, memory does not."""
        step = super().training_step
        return torch.stack([step(model, each, *rest, **more) for each in inputs["passes"]]).sum()

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Tensor:  # noqa: FBT001
        parts, margin = self.measure(model, inputs)
        log = self._metrics["train" if model.training else "eval"]
        # TRL averages what is logged: a number for each pair, because passes differ in size.
        for name, value in parts.parts.items():
            log[f"objective/{name}"] += [value.item()] * len(margin)
        log["rewards/margins"] += margin.tolist()
        log["rewards/accuracies"] += (margin > 0).float().tolist()
        return parts.total * inputs["share"]

    def measure(self, model: Any, inputs: dict[str, Any]) -> tuple[Parts, Tensor]:
        """The objective of one pass, and the pairs' reward margins (detached), shape (pairs,)."""
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


def policy_logps(trainer: AnchoredDPOTrainer, inputs: dict[str, Any]) -> PairLogps:
    """Log-probs of the policy being trained in one pass, without gradient; for the wiring proof."""
    with torch.no_grad(), trainer.compute_loss_context_manager():
        return PairLogps(*completion_logps(trainer.model, batch_of(inputs).rows).cpu().chunk(2))
