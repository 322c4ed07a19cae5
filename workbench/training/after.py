"""What is done to a child's weights after its last step: updates freed of earlier directions, averages with the start."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch

from preference_data.versions import load_version
from workbench.config import AfterSettings
from workbench.errors import WiringError
from workbench.maths import short_to_long
from workbench.models.forward import Layout, batches_by_length, collate, completion_logps
from workbench.models.load import base_of
from workbench.models.tokens import EncodedPair, encode_pair, pad_id
from workbench.models.weights import Weights, set_weights, trained_weights, weights_of
from workbench.tasks import PolicyRef, Progress, Report, TrainJob
from workbench.training.merging import NOTHING, Given, merge_of
from workbench.training.trainer import AnchoredDPOTrainer, tokenizer_of

MATRIX = 2
LAYER = re.compile(r"\D*\.(\d+)\.")
"""The first number in a parameter's name is its layer."""


class Chooser:
    """How good weights are on select pairs: the mean over versions of the mean chance of preferring the chosen answer.

    That chance is sigma(D), the policy restricted to the two answers; unlike accuracy it has no steps.

    Args:
        trainer: whose model's weights are tried.
        job: names the versions.
    """

    def __init__(self, trainer: AnchoredDPOTrainer, job: TrainJob) -> None:
        tokenizer = tokenizer_of(trainer)
        self._model, self._pad = trainer.model, pad_id(tokenizer)
        self._layout: Layout = trainer.pairs.layout
        length = job.training.max_length
        sets = [load_version(Path(v.path)).pairs("select") for v in job.versions]
        encoded = [[e for p in pairs if (e := encode_pair(tokenizer, p, max_length=length))] for pairs in sets]
        self._sets = [each for each in encoded if each]
        if not self._sets:
            raise WiringError("after.keep chooses on select pairs, but no version has one; freeze more pairs, or leave "
                              "after.keep out")  # fmt: skip

    def worth(self, weights: Weights) -> float:
        """Of these weights, which stay in the model."""
        set_weights(self._model, weights)
        return sum(map(self._chance, self._sets)) / len(self._sets)

    def _chance(self, pairs: Sequence[EncodedPair]) -> float:
        sides = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
        logps = torch.zeros(len(sides), dtype=torch.float64)
        with torch.no_grad():
            for batch in batches_by_length(sides, size=64, layout=self._layout):
                rows = collate([sides[i] for i in batch], pad_id=self._pad, layout=self._layout)
                logps[batch] = completion_logps(self._model, rows).double().cpu()
        return float((logps[::2] - logps[1::2]).sigmoid().mean())


class Average(NamedTuple):
    """An average that was tried: the start's share in each block of layers, and what it was worth."""

    keep: tuple[float, ...]
    worth: float


class Refinement:
    """What `job.after` asks for, made ready before the first step, so that what cannot be done is refused then.

    Args:
        trainer: its model has the weights that training starts from.
        job: says what to do.
    """

    def __init__(self, trainer: AnchoredDPOTrainer, job: TrainJob) -> None:
        self._model: Any = trainer.model
        self._settings, wanted = job.after, job.after != AfterSettings()
        self._start = trained_weights(self._model) if wanted else {}
        updates = _updates(job.lineage, self._model) if job.after.by_rounds else []
        origin = weights_of(base_of(job.parent), self._model) if job.after.merge == "slerp" else {}
        self._given = Given(origin, updates, job.training.seed)
        self._chooser = Chooser(trainer, job) if job.after.keep else None

    def apply(self, report: Report) -> None:
        """Set the model, after its last step, to the child asked for; `report` is told the shares chosen."""
        was_training = self._model.training
        self._model.eval()
        if self._settings.overlap is not None:
            child = trained_weights(self._model)
            set_weights(self._model, _freed(child, self._start, self._given.updates, self._settings))
        if self._chooser:
            averages = Averages(trained_weights(self._model), self._start, self._settings, self._given)
            set_weights(self._model, _best(averages, self._chooser, report))
        self._model.train(was_training)


def _updates(lineage: Sequence[PolicyRef], model: Any) -> list[Weights]:
    """What each earlier round did to each matrix; the first one from nothing, whose start nobody kept."""
    states = [weights_of(policy, model) for policy in lineage]
    return [{name: after[name] - before[name] for name in after} for before, after in pairwise(states)]


def _freed(child: Weights, start: Weights, earlier: Sequence[Weights], settings: AfterSettings) -> Weights:
    overlap = settings.overlap or 0.0
    return {
        name: start[name]
        + short_to_long(end - start[name], [e[name] for e in earlier], overlap=overlap, energy=settings.energy)
        if end.ndim == MATRIX
        else end
        for name, end in child.items()
    }


class Averages:
    """Averages of a child with its start, each block of layers with a share of its own.

    Args:
        child, start: their weights.
        settings: shares to try, blocks, and what an average is.
        given: what some averages need beside the two.
    """

    def __init__(self, child: Weights, start: Weights, settings: AfterSettings, given: Given = NOTHING) -> None:
        self._settings, self._merge = settings, merge_of(child, start, settings, given)
        self._block = _blocks(list(child), settings.blocks)

    def of(self, shares: Sequence[float]) -> Weights:
        """The average in which the start has these shares of the blocks."""
        return {name: self._merge(name, shares[block]) for name, block in self._block.items()}

    def stages(self) -> list[Callable[[Sequence[float]], list[tuple[float, ...]]]]:
        """What to try in turn, given the best so far: one share for all, then each block's apart."""
        keep, blocks = self._settings.keep, self._settings.blocks
        alike = [lambda _: [(share,) * blocks for share in keep]]
        apart = [lambda best, at=at: [(*best[:at], share, *best[at + 1 :]) for share in keep] for at in range(blocks)]
        return alike + (apart if blocks > 1 else [])


def _best(averages: Averages, chooser: Chooser, report: Report) -> Weights:
    stages, best, done = averages.stages(), Average((), -1.0), 0
    for stage in stages:
        trials = stage(best.keep)
        for shares in trials:
            tried, done = Average(shares, chooser.worth(averages.of(shares))), done + 1
            best = max(best, tried, key=lambda each: (each.worth, each.keep))
            facts = {"keep": sum(best.keep) / len(best.keep), "chance": best.worth}
            report(Progress("average", done, len(stages) * len(trials), facts))
    return averages.of(best.keep)


def _blocks(names: Sequence[str], count: int) -> dict[str, int]:
    """Block of each parameter: its layer's place among all; what is in no layer goes with the first."""
    layers = {name: int(found.group(1)) for name in names if (found := LAYER.match(name))}
    most = max(layers.values(), default=0) + 1
    return {name: layers.get(name, 0) * count // most for name in names}
