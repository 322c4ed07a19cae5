"""Callbacks of a training run: progress, KL, finiteness, sealed checkpoints, stop."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from workbench.config import NumericsSettings
from workbench.errors import NumericsError
from workbench.failpoints import failpoint
from workbench.maths import kl_per_position
from workbench.models.forward import Rows, completion_logits
from workbench.models.numerics import apply_numerics
from workbench.tasks import Progress, Report
from workbench.training.carried import Carried
from workbench.training.checkpoints import seal_checkpoint


class KlProbe:
    """KL(child || parent) on a few fixed answers, exactly over the vocabulary, in nats per token.

    A signal for the progress bar; the number that counts is measured after training on the child's own samples.

    Attributes:
        cost_s: seconds that measuring takes.
    """

    def __init__(self, model: Any, rows: Rows, numerics: NumericsSettings) -> None:
        self._model, self._rows, self._numerics = model, rows, numerics
        began = time.monotonic()
        self._parent = self._logits()
        self.cost_s = time.monotonic() - began

    def measure(self) -> float:
        """Mean over the probe's positions."""
        return float(kl_per_position(self._logits(), self._parent).mean())

    def _logits(self) -> torch.Tensor:
        was_training = self._model.training
        with torch.no_grad(), apply_numerics(self._numerics):
            logits = completion_logits(self._model.eval(), self._rows).logits
        self._model.train(was_training)
        return logits


FRESH = ("reward", "guard", "kl", "kl_per_token", "kl_base", "apart", "answer_tokens", "truncated", "distinct_answers")
"""What is logged of fresh answers: means over a step's answers; the KL to the anchors in nats per answer and per token, and to
the base per token where it has a budget; how far
apart an answer's log-prob is where it was written and where it is learned from, nats per token; the share cut at the limit. Their
loss is no measure of anything: it has the gradient that is wanted, and starts over with every step's answers."""
OF_TOKENS = ("entropy_chosen", "entropy_rejected", "top1_chosen", "top1_rejected")
"""What is logged of the tokens of a step's answers where it is asked for: the mean entropy of the distribution that predicts
them, nats, and the share that are its likeliest."""
PROBE_SHARE = 0.02
"""Most of the time that measuring KL for the progress bar may take."""


class Watch(TrainerCallback):
    """Reports every step, fails at the first number that is not finite, seals checkpoints, listens for a stop."""

    def __init__(
        self, report: Report, probe: KlProbe | None, *, pairs_per_step: int, plan: str, carried: Sequence[Carried] = ()
    ) -> None:
        self._report, self._probe, self._carried = report, probe, carried
        self._pairs_per_step, self._plan = pairs_per_step, plan
        self._started = self._ended = self._probed = time.monotonic()
        self._first_step, self._kl = 0, math.nan
        self.stopped = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock; a resumed run counts its own steps only."""
        self._started = self._ended = self._probed = time.monotonic()
        self._first_step = state.global_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Tell what follows the weights. A place to be killed at, for the tests."""
        self._ended = time.monotonic()
        for each in self._carried:
            each.after_step()
        failpoint("training.step")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Check and report one optimizer step.

        Raises:
            NumericsError: loss or gradient norm is not finite.
        """
        facts = logs or {}
        if "loss" not in facts:
            return
        for name in ("loss", "grad_norm"):
            require_finite(facts.get(name, 0.0), f"{name} at step {state.global_step}")
        self._measure_kl(last=state.global_step == state.max_steps)
        elapsed = max(self._ended - self._started, 1e-9)
        steps = state.global_step - self._first_step
        fresh = {name: facts[name] for name in FRESH if name in facts}
        of_pairs = {"loss": facts["loss"], "accuracy": facts.get("rewards/accuracies", math.nan)}
        shown = {
            **(fresh or of_pairs),
            "kl_parent": self._kl,
            "prompts_per_s" if fresh else "pairs_per_s": steps * self._pairs_per_step / elapsed,
            "eta_s": elapsed / max(steps, 1) * (state.max_steps - state.global_step),
            **{name: facts[name] for name in OF_TOKENS if name in facts},
        }
        shown = {name: value for name, value in shown.items() if math.isfinite(value)}
        if self._report(Progress("optimise", state.global_step, state.max_steps, shown)):
            self.stopped = control.should_save = control.should_training_stop = True

    def _measure_kl(self, *, last: bool) -> None:
        due = self._probe and time.monotonic() - self._probed >= self._probe.cost_s / PROBE_SHARE
        if self._probe and (last or due):
            self._kl = self._probe.measure()
            self._probed = time.monotonic()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Seal the checkpoint just written, if its weights are finite."""
        require_finite_weights(kwargs["model"])
        failpoint("training.before_seal")
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        for each in self._carried:
            each.save(folder)
        seal_checkpoint(folder, self._plan)


def require_finite(value: float, what: str) -> None:
    """Refuse a number that is not finite.

    Raises:
        NumericsError: names what was not finite and what to try.
    """
    if not math.isfinite(value):
        raise NumericsError(
            f"{what} is {value}; nothing of this round was promoted; lower training.learning_rate or use "
            "numerics.dtype = 'float32', then plan the round again"
        )


def require_finite_weights(model: torch.nn.Module) -> None:
    """Refuse trained weights that are not finite.

    Raises:
        NumericsError: names the first such parameter.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            require_finite(math.nan, f"weight {name}")
