"""The TRL skin: a DPO trainer whose loss is ours.

TRL gives the loop, the optimizer, schedules, checkpoints and resumption. Tokenising, the reference and the loss are
the workbench's, so a few methods are overridden; a test pins their signatures.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from trl.trainer.dpo_trainer import DPOTrainer

from workbench.config import ObjectiveSettings
from workbench.maths import PairLogps
from workbench.models.forward import completion_logps, completion_states, logps_from
from workbench.models.head import Seen
from workbench.training.batches import PairCollator, batch_of
from workbench.training.carried import MovingReference
from workbench.training.lanes import Lanes
from workbench.training.objective import Parts, logit, objective
from workbench.training.penalties import Pass, Penalty


class _Differentiated(NamedTuple):
    """One pass: its objective, how far each pair is on its right side, its loss, and that one's gradients."""

    parts: Parts
    margin: Tensor
    loss: Tensor
    gradients: tuple[Tensor | None, ...]


class AnchoredDPOTrainer(DPOTrainer):
    """DPO with cached anchors as the reference, per-pair weights and a loss from `workbench.maths`.

    Set these before the first step.

    Attributes:
        objective_settings: the preference loss.
        pairs: lays them out.
        penalties: what is added to the loss, by name.
        moving: a part of the reference that follows the policy, if any.
        token_metrics: log how sure the policy is of the answers' tokens, too.
        lanes: compute the passes of a turn side by side, if any.
    """

    objective_settings: ObjectiveSettings
    pairs: PairCollator
    penalties: Mapping[str, Penalty]
    moving: MovingReference | None = None
    token_metrics: bool = False
    lanes: Lanes | None = None
    loss_is_scaled_for_ga = True  # shares are those of a step: transformers must not divide by its batches once more

    def __init__(self, *, model: Any, **more: Any) -> None:
        # Over a base in four bits TRL rounds what is trained to bfloat16; here it stays as it is, float32.
        exact = {name: p.data for name, p in model.named_parameters() if p.requires_grad}
        super().__init__(model=model, **more)
        for name, parameter in model.named_parameters():
            if name in exact:
                parameter.data = exact[name]

    def _prepare_dataset(self, dataset: Dataset, processing_class: Any, args: Any, dataset_name: str) -> Dataset:
        # Rows arrive tokenised, exactly as they were scored.
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        # The reference is the geometric mean of cached anchor scores, already in the rows.
        return dataset

    def get_batch_samples(self, *given: Any, **more: Any) -> tuple[list[Any], Any]:
        """The batches of one step, each pass with the share of its pairs in the step: every pair counts alike."""
        batches, items = super().get_batch_samples(*given, **more)
        passes = [each for batch in batches for each in batch.get("passes", ())]  # fresh answers are laid out later
        pairs = sum(len(each["weight"]) for each in passes)
        for each in passes:
            each["share"] = len(each["weight"]) / pairs
        return batches, items

    def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Tensor:
        """The loss of one batch, a turn at a time: gradients add up to the step's, memory does not."""
        step = super().training_step
        if self.lanes is None:
            return torch.stack([step(model, each, *rest, **more) for each in inputs["passes"]]).sum()
        turns = groupby(inputs["passes"], key=itemgetter("turn"))
        return torch.stack([loss for _, turn in turns for loss in self._side_by_side(self.lanes, list(turn))]).sum()

    def _side_by_side(self, lanes: Lanes, passes: Sequence[dict[str, Any]]) -> list[Tensor]:
        """The losses of passes that are computed at once; their gradients are added in this order."""
        model: Any = self.model
        model.train()
        trained = [p for p in model.parameters() if p.requires_grad]

        def one(inputs: dict[str, Any]) -> _Differentiated:
            with self.compute_loss_context_manager():
                parts, margin = self.measure(model, inputs)
            loss = parts.total * inputs["share"]
            return _Differentiated(parts, margin, loss.detach(), torch.autograd.grad(loss, trained, allow_unused=True))

        found = lanes.run(one, passes) if len(passes) > 1 else [one(passes[0])]
        for each in found:
            self._note(each.parts, each.margin)
            for parameter, gradient in zip(trained, each.gradients, strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        return [each.loss for each in found]

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Tensor:  # noqa: FBT001
        parts, margin = self.measure(model, inputs)
        self._note(parts, margin)
        return parts.total * inputs["share"]

    def _note(self, parts: Parts, margin: Tensor) -> None:
        """Log one pass. TRL averages what is logged: a number for each pair, because passes differ in size."""
        model: Any = self.model
        log = self._metrics["train" if model.training else "eval"]
        for name, value in parts.parts.items():
            log[f"objective/{name}"] += [value.item()] * len(margin)
        log["rewards/margins"] += margin.tolist()
        log["rewards/accuracies"] += (margin > 0).float().tolist()

    def measure(self, model: Any, inputs: dict[str, Any]) -> tuple[Parts, Tensor]:
        """The objective of one pass, and how far the pairs are on their right side (detached), shape (pairs,)."""
        batch = batch_of(inputs)
        rows, beta = batch.rows.on(model.device), self.objective_settings.beta
        states = completion_states(model, rows)
        seen = Seen.of(len(rows.targets), model.device) if self.token_metrics else None
        policy = PairLogps(*logps_from(states, rows, seen).chunk(2))
        if seen:
            self._log_tokens(seen, rows.example < rows.examples // 2)
        given = Pass(model, batch, policy, states, beta)
        reference = self.moving.reference(batch.reference, rows) if self.moving else batch.reference
        parts = objective(
            policy,
            reference,
            lengths=batch.lengths,
            weights=batch.weights,
            good=batch.good,
            settings=self.objective_settings,
            penalties={name: penalty(given) for name, penalty in self.penalties.items()},
        )
        margin = logit(policy, reference, good=batch.good, settings=self.objective_settings)
        return parts, margin.detach()

    def _log_tokens(self, seen: Seen, chosen: Tensor) -> None:
        """A number for each token, because TRL averages; `chosen` tells which belong to chosen answers."""
        log = self._metrics["train"]
        for side, its in (("chosen", chosen), ("rejected", ~chosen)):
            log[f"entropy_{side}"] += seen.entropy[its].tolist()
            log[f"top1_{side}"] += seen.likeliest[its].tolist()


def policy_logps(trainer: AnchoredDPOTrainer, inputs: dict[str, Any]) -> PairLogps:
    """Log-probs of the policy being trained in one pass, without gradient; for the wiring proof."""
    with torch.no_grad(), trainer.compute_loss_context_manager():
        return PairLogps(*completion_logps(trainer.model, batch_of(inputs).rows).cpu().chunk(2))


def tokenizer_of(trainer: AnchoredDPOTrainer) -> PreTrainedTokenizerBase:
    """The tokenizer of the lineage."""
    tokenizer: Any = trainer.processing_class
    return tokenizer
