"""What changes between optimizer steps beside the weights, and so has to outlive a killed round."""

import json
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file

from workbench.config import MovingSettings
from workbench.maths import PairLogps, between
from workbench.models.forward import Rows, completion_logps
from workbench.models.weights import speaking_as, trained_weights


class Carried(Protocol):
    """State of a round that a checkpoint has to hold."""

    def after_step(self) -> None:
        """An optimizer step was taken."""
        ...

    def save(self, folder: Path) -> None:
        """Write the state into a checkpoint."""
        ...

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint."""
        ...


class Steering:
    """Weight of a KL term, steered towards a budget (Ziegler et al., arXiv 1909.08593); of several, towards what is spent most.

    Args:
        name: of its file.
        budgets: nats per token, or per whatever is counted with what was seen; None where there is none, and with none
            the weight stays at 1.
    """

    def __init__(self, name: str, *budgets: float | None) -> None:
        self.weight = 1.0
        self._file, self._budgets = f"steer-{name}.json", budgets
        self._seen: list[tuple[int, float, int]] = []

    def saw(self, nats: float, count: int, *, of: int = 0) -> None:
        """The KL that a budget is about, by its place, summed over so many."""
        self._seen.append((of, nats, count))

    def after_step(self) -> None:
        """Up to a tenth more or less weight."""
        seen, self._seen = self._seen, []
        errors: list[float] = []
        for k, budget in enumerate(self._budgets):
            count = sum(each for of, _, each in seen if of == k)
            if budget and count:
                errors.append(sum(nats for of, nats, _ in seen if of == k) / count / budget - 1)
        if errors:
            error = max(-MOST_ERROR, min(MOST_ERROR, max(errors)))
            self.weight = max(1 / MOST_WEIGHT, min(MOST_WEIGHT, self.weight * (1 + error * GAIN)))

    def save(self, folder: Path) -> None:
        """Write the weight."""
        (folder / self._file).write_text(json.dumps(self.weight), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Read it."""
        self.weight = json.loads((folder / self._file).read_text(encoding="utf-8"))


MOST_ERROR, GAIN, MOST_WEIGHT = 0.2, 0.5, 1000.0
"""The relative error that steering reacts to at most, how strongly, and where it ends."""


class MovingReference:
    """A copy of the policy that follows it: the EMA anchor of WARP (arXiv 2406.16768), or TR-DPO (arXiv 2404.09656).

    Args:
        model: in training, at the weights it starts from.
        settings: share in the reference, rate and distance of its moves.
    """

    FILE = "moving.safetensors"

    def __init__(self, model: Any, settings: MovingSettings) -> None:
        self._model, self._settings, self._steps = model, settings, 0
        self.weights = trained_weights(model)

    def reference(self, static: PairLogps, rows: Rows) -> PairLogps:
        """The reference of some pairs: the static one and the moving one, weighted.

        Args:
            static: log-probs under the anchors, shape (pairs,).
            rows: the pairs, chosen answers first.
        """
        with speaking_as(self._model, self.weights):
            chosen, rejected = completion_logps(self._model, rows).chunk(2)
        share = self._settings.share
        return PairLogps(
            torch.lerp(static.chosen.to(chosen), chosen, share),
            torch.lerp(static.rejected.to(rejected), rejected, share),
        )

    def after_step(self) -> None:
        """Follow the policy, where it is time."""
        self._steps += 1
        if self._steps % self._settings.every == 0:
            policy = {name: p.detach() for name, p in self._model.named_parameters() if name in self.weights}
            keep = 1 - self._settings.rate
            self.weights = {name: between(before, policy[name], keep) for name, before in self.weights.items()}

    def save(self, folder: Path) -> None:
        """Write weights and how many steps were taken."""
        save_file(self.weights, folder / self.FILE)
        (folder / "moving.json").write_text(json.dumps(self._steps), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Read them."""
        self.weights = load_file(folder / self.FILE, device=str(self._model.device))
        self._steps = json.loads((folder / "moving.json").read_text(encoding="utf-8"))
