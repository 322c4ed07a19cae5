"""Which training pairs of a round moved the policy away from what an earlier version taught.

A gradient step on a training pair changes the margin of an old pair by minus the product of both gradients, at first
order (TracIn, Pruthi et al., arXiv 2002.08484). That product is the slope of the training pair's loss along the gradient
of the margins that turned: two forward passes for each pair, a small step this way and that, in place of a backward pass.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from preference_data.pair_table import row_of
from preference_data.records import Pair
from preference_data.versions import load_version
from workbench.errors import ConfigError, StopRequested
from workbench.maths import PairLogps, loss_named
from workbench.models.forward import Layout, batches_by_length, collate, completion_logps
from workbench.models.load import load_tokenizer, trainable
from workbench.models.numerics import apply_numerics
from workbench.models.score_table import read_table
from workbench.models.sharing import layout_of
from workbench.models.tokens import EncodedPair, encode_pair, pad_id
from workbench.models.weights import Weights, set_weights, speaking_as, trained_weights, weights_of
from workbench.tasks import INFLUENCE, ExplainJob, Progress, Report
from workbench.training.batches import train_rows

STEP_NATS = 0.005
"""By how much the small step changes those margins: large against rounding, small against what training changed."""
FEWEST, MOST = 3, 512
"""Old pairs that must have turned, and old pairs looked at."""
AT_ONCE, TOKENS = 8, 1024
"""Pairs and tokens of one forward pass."""


def explain(job: ExplainJob, report: Report) -> None:
    """Write the training pairs of a round by how much they moved the child away from a version, the worst first.

    Each line has a `pair` and its `share` of all that the pairs did for or against the fall, negative where training on it
    held against it. Penalties of the objective are left out: they belong to no pair.

    Raises:
        ConfigError: the version taught nothing of this slice, or too little of it turned.
        StopRequested: `report` answered True.
    """
    measure = _Measure(job, report)
    with apply_numerics(job.numerics):
        harms = measure.harms()
    whole = sum(abs(harm) for harm in harms.values()) or 1.0
    pairs = {pair.key: pair for pair in load_version(Path(job.trained.version.path)).pairs("train")}
    with (Path(job.output) / INFLUENCE).open("w", encoding="utf-8") as file:
        for key, harm in sorted(harms.items(), key=lambda each: -each[1]):
            file.write(json.dumps({"share": harm / whole, "pair": row_of(pairs[key])}, ensure_ascii=False) + "\n")


class _Measure:
    """A round's model, its training pairs and what fell, ready to be moved along."""

    def __init__(self, job: ExplainJob, report: Report) -> None:
        trained = job.trained
        self._report, self._done = report, 0
        tokenizer = load_tokenizer(trained.parent.base_path)
        self._pad = pad_id(tokenizer)
        tables = {digest: read_table(Path(folder)) for digest, folder in trained.tables.items()}
        self._rows = train_rows(
            load_version(Path(trained.version.path)).pairs("train"), tokenizer, max_length=trained.training.max_length,
            parent=tables[trained.parent.digest], anchors=[(a, tables[a.policy.digest]) for a in trained.anchors],
            by_slice=trained.by_slice,
        )  # fmt: skip
        self._old = _known(job, tokenizer)
        self._objective, self._epochs = trained.objective, trained.training.epochs
        self._model: Any = trainable(trained.parent, trained.training, job.numerics)
        self._layout: Layout = layout_of(self._model)
        self._points = (trained_weights(self._model), weights_of(job.child, self._model))
        self._total = 2 * (len(self._points) * len(self._rows) + len(self._old))

    def harms(self) -> dict[str, float]:
        """By key of a training pair: how much a small step on it lowers the agreement with what fell.

        Averaged over where the round began and where it ended.
        """
        start, end = (self._logps(self._old, point).margin > 0 for point in self._points)
        turned = (start & ~end).nonzero()[:, 0].tolist()
        if len(turned) < FEWEST:
            raise ConfigError(
                f"{len(turned)} of {len(self._old)} pairs the version taught were right before the round and are wrong now; "
                f"expected {FEWEST} or more to tell what turned them; there is too little to explain"
            )
        found = {row.key: 0.0 for row in self._rows}
        for point in self._points:
            set_weights(self._model, point)
            way = self._back([self._old[i] for i in turned])
            for row, slope in zip(self._rows, self._slopes(point, way), strict=True):
                times = len(row.epochs) or self._epochs
                found[row.key] += times * row.weight * float(slope) / len(self._points)
        return found

    def _back(self, turned: Sequence[EncodedPair]) -> Weights:
        """The gradient of the mean margin of what turned, at the model's own weights."""
        self._model.zero_grad()
        for part in self._parts(turned):
            chosen, rejected = self._sides([turned[i] for i in part])
            ((chosen - rejected).sum() / len(turned)).backward()
        return {name: p.grad.detach().clone() for name, p in self._model.named_parameters() if p.grad is not None}

    def _slopes(self, point: Weights, way: Weights) -> Tensor:
        """Slope of each training pair's loss along a way, shape (pairs,)."""
        square = sum(float(g.double().pow(2).sum()) for g in way.values())
        size = STEP_NATS / max(square, 1e-20)
        losses: list[Tensor] = []
        for sign in (1.0, -1.0):
            moved = {name: w + sign * size * way[name] if name in way else w for name, w in point.items()}
            losses.append(self._losses(self._logps([EncodedPair(r.chosen, r.rejected) for r in self._rows], moved)))
        return (losses[0] - losses[1]) / (2 * size)

    def _losses(self, policy: PairLogps) -> Tensor:
        """The preference loss of each training pair, shape (pairs,), in double precision."""
        reference = PairLogps(*(torch.tensor([r.reference[k] for r in self._rows]).double() for k in (0, 1)))
        lengths = PairLogps(
            torch.tensor([len(r.chosen.completion) for r in self._rows]),
            torch.tensor([len(r.rejected.completion) for r in self._rows]),
        )
        chosen = self._objective
        return loss_named(chosen.loss)(
            policy, reference, beta=chosen.beta, label_smoothing=chosen.label_smoothing, lengths=lengths
        )

    def _logps(self, pairs: Sequence[EncodedPair], weights: Mapping[str, Tensor]) -> PairLogps:
        """Of the model with some weights, in double precision, shape (pairs,)."""
        both = torch.zeros(2, len(pairs), dtype=torch.float64)
        with speaking_as(self._model, weights):
            for part in self._parts(pairs):
                both[:, part] = self._sides([pairs[i] for i in part]).double().cpu()
                self._tell(len(part))
        return PairLogps(both[0], both[1])

    def _sides(self, pairs: Sequence[EncodedPair]) -> Tensor:
        """Log-probs of chosen and rejected answers in one pass, shape (2, pairs)."""
        examples = [side for pair in pairs for side in pair]
        rows = collate(examples, pad_id=self._pad, layout=self._layout)
        return completion_logps(self._model, rows).view(-1, 2).T

    def _parts(self, pairs: Sequence[EncodedPair]) -> list[list[int]]:
        """Pairs for each pass, those of similar length together."""
        both = [pair.chosen for pair in pairs]
        return list(batches_by_length(both, size=AT_ONCE, tokens=TOKENS, layout="plain"))

    def _tell(self, count: int) -> None:
        self._done += count
        if self._report(Progress("explain", self._done, self._total, {})):
            raise StopRequested("explaining was asked to stop; ask again to begin anew")


def _known(job: ExplainJob, tokenizer: PreTrainedTokenizerBase) -> list[EncodedPair]:
    """What the version taught, without its test pairs: whoever acts on an explanation must not have looked at those.

    Raises:
        ConfigError: it taught nothing of this slice.
    """
    version = load_version(Path(job.version.path))
    pairs = sorted((p for p in version.pairs() if p.split != "test" and _in(p, job.within)), key=lambda p: p.key)
    encoded = (encode_pair(tokenizer, p, max_length=job.trained.training.max_length) for p in pairs[:MOST])
    found = [pair for pair in encoded if pair]
    if not found:
        within = f" of {job.within}" if job.within else ""
        raise ConfigError(
            f"version {job.version.digest[:12]} has no train or select pairs{within}; what moved the policy away from it "
            "cannot be told; choose all items, or a version that was trained on"
        )
    return found


def _in(pair: Pair, within: str) -> bool:
    name, _, value = within.partition("=")
    return not within or pair.slices.get(name) == value
