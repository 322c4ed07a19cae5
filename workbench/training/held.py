"""The penalties of a round, made ready for its model."""

from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from preference_data.records import digest
from preference_data.versions import load_version
from workbench.models.forward import Rows, collate, completion_logps
from workbench.models.load import base_of
from workbench.models.tokens import encode_pair, pad_id
from workbench.models.weights import trained_weights, weights_of
from workbench.tasks import TrainJob
from workbench.training.carried import Carried, Steering
from workbench.training.online.trainer import OnlineTrainer
from workbench.training.orthogonal import orthogonal
from workbench.training.penalties import KlToAnchors, Penalty, fisher, hold, near
from workbench.training.stepping import MergedSteps
from workbench.training.trainer import AnchoredDPOTrainer, tokenizer_of


def penalties_of(job: TrainJob, trainer: AnchoredDPOTrainer) -> dict[str, Penalty]:
    """What is added to the loss, by name; nothing for a weight of 0.

    Args:
        job: says which.
        trainer: its model has the weights that training starts from.
    """
    model: Any = trainer.model
    settings = job.penalties
    found: dict[str, Penalty] = {}
    if settings.hold:
        found["hold"] = hold(settings.hold)
    if settings.kl_new or settings.kl_old:
        found["kl"] = KlToAnchors(
            [weights_of(a.policy, model) for a in job.anchors],
            lambda batch: batch.anchors,
            weights=(settings.kl_new, settings.kl_old),
            direction=settings.kl_direction,
            steering=Steering("kl", settings.kl_budget),
        )
    if settings.kl_base:
        found["kl_base"] = KlToAnchors(
            [weights_of(base_of(job.parent), model)],
            lambda batch: torch.ones_like(batch.weights)[:, None],
            weights=(settings.kl_base, settings.kl_base),
            direction=settings.kl_direction,
            steering=Steering("kl-base", settings.kl_base_budget),
        )
    if settings.ewc and (old := _old_pairs(job, trainer)):
        importance = fisher(model, old, lambda rows: _margin(model, rows), beta=job.objective.beta)
        found["ewc"] = near(trained_weights(model), importance, settings.ewc)
    if settings.orthogonal:
        term = orthogonal([weights_of(policy, model) for policy in job.lineage], settings.orthogonal)
        found |= {"orthogonal": term} if term else {}
    return found


def carried_by(trainer: AnchoredDPOTrainer, job: TrainJob) -> list[Carried]:
    """What changes from step to step beside the weights; first what changes them once more."""
    found: list[Carried] = []
    if job.merging.kind != "none":
        model: Any = trainer.model
        found.append(MergedSteps(model, weights_of(base_of(job.parent), model), job.merging, job.training.seed))
    found += [p.steering for p in trainer.penalties.values() if isinstance(p, KlToAnchors)]
    if isinstance(trainer, OnlineTrainer):
        found += trainer.fresh.carried()
    return [*found, trainer.moving] if trainer.moving else found


def _old_pairs(job: TrainJob, trainer: AnchoredDPOTrainer) -> list[Rows]:
    """Some training pairs of earlier rounds, each laid out alone; the same ones on every machine."""
    tokenizer, layout = tokenizer_of(trainer), trainer.pairs.layout
    pairs = {p.key: p for version in job.history for p in load_version(Path(version.path)).pairs("train")}
    drawn = sorted(pairs, key=lambda key: digest([job.training.seed, key]))
    encoded = (encode_pair(tokenizer, pairs[key], max_length=job.training.max_length) for key in drawn)
    rows = (collate([e.chosen, e.rejected], pad_id=pad_id(tokenizer), layout=layout) for e in encoded if e)
    return list(islice(rows, job.penalties.ewc_pairs))


def _margin(model: Any, rows: Rows) -> Tensor:
    chosen, rejected = completion_logps(model, rows)
    return torch.stack([chosen - rejected])
