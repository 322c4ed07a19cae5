"""Who writes the answers that a round learns from: the trainer itself, or workers beside it that are sent its weights.

Which answers a step gets is settled: those of the policy as it was `staleness` steps before, never whatever is ready. So a
round with workers is the same round whenever it runs, up to rounding, and lock-step is a staleness of none.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from preference_data.records import Prompt
from workbench.config import NumericsSettings
from workbench.models.load import load_tokenizer, trainable
from workbench.models.numerics import apply_numerics
from workbench.models.packed import hold_in_half
from workbench.models.sampling import Answer, Sampling, sample
from workbench.models.sharing import layout_of
from workbench.models.tokens import Encoded
from workbench.models.weights import Weights, set_weights, trained_weights
from workbench.tasks import TrainJob
from workbench.training.trainer import AnchoredDPOTrainer, tokenizer_of

if TYPE_CHECKING:
    from workbench.models.forward import Layout

Written = Callable[[], list[Answer]]
"""Answers being written: waits for them."""
Write = Callable[[Callable[[], Weights], Sequence[Prompt], Sampling], Written]
"""Begins to write answers with weights in place of the start's, one for each prompt in its order."""


class Writer:
    """A policy that is given weights and writes; what a worker holds.

    Args:
        job: of the round; says which model, adapter and precision.
    """

    def __init__(self, job: TrainJob) -> None:
        self._numerics = job.numerics
        self._tokenizer = load_tokenizer(job.parent.base_path)
        self._model: Any = trainable(job.parent, job.training, job.numerics)
        self._layout: Layout = layout_of(self._model)
        if job.numerics.dtype == "bfloat16":
            with apply_numerics(job.numerics):
                hold_in_half(self._model)

    def write(self, weights: Mapping[str, Any], prompts: Sequence[Prompt], sampling: Sampling) -> list[Answer]:
        """Answers of the policy with these weights, given as arrays by their names."""
        set_weights(self._model, {name: torch.tensor(array) for name, array in weights.items()})
        with torch.no_grad(), apply_numerics(self._numerics):
            return sample(self._model.eval(), self._tokenizer, prompts, sampling, layout=self._layout)


def own_answers(trainer: AnchoredDPOTrainer, numerics: NumericsSettings) -> Write:
    """The trainer's own model writes, at once and as it is."""

    def write(_: Callable[[], Weights], prompts: Sequence[Prompt], sampling: Sampling) -> Written:
        model: Any = trainer.model
        with torch.no_grad(), apply_numerics(numerics):
            found = sample(model.eval(), tokenizer_of(trainer), prompts, sampling, layout=trainer.pairs.layout)
        model.train()
        return lambda: found

    return write


class Ahead:
    """Answers of steps to come, each begun `staleness` steps before it is learned from.

    Args:
        model: in training.
        write: who writes.
        asked: what each step asks, and how, from step 0.
        staleness: how many steps the policy that wrote may lie behind.
    """

    FILE = "ahead.json"

    def __init__(
        self, model: Any, write: Write, asked: Callable[[int], tuple[list[Prompt], Sampling] | None], *, staleness: int
    ) -> None:
        self._model, self._write, self._asked, self._staleness = model, write, asked, staleness
        self._begun: dict[int, Written] = {}

    def answers(self, step: int) -> list[Answer]:
        """Those of a step; further ones are begun with the weights as they are now."""
        for later in range(step, step + self._staleness + 1):
            if later not in self._begun and (wanted := self._asked(later)):
                self._begun[later] = self._write(lambda: trained_weights(self._model), *wanted)
        return self._begun.pop(step)()

    def after_step(self) -> None:
        """Nothing: it is asked when a step begins."""

    def save(self, folder: Path) -> None:
        """Wait for what was begun and write it down: its policy is gone when the round goes on from here."""
        found = {step: written() for step, written in self._begun.items()}
        self._begun = {step: (lambda answers=answers: answers) for step, answers in found.items()}
        plain = {step: [asdict(a) | {"encoded": list(a.encoded)} for a in answers] for step, answers in found.items()}
        (folder / self.FILE).write_text(json.dumps(plain), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Read it."""
        kept = json.loads((folder / self.FILE).read_text(encoding="utf-8"))
        for step, rows in kept.items():
            answers = [Answer(**{**row, "encoded": Encoded(*map(tuple, row["encoded"]))}) for row in rows]
            self._begun[int(step)] = lambda answers=answers: answers
