"""From a version and its cached scores to the rows the trainer reads, in the order it reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from preference_data.records import Pair
from workbench.answers import GOOD, SIDE
from workbench.errors import WiringError
from workbench.maths import PairLogps, Weighted, geometric_reference
from workbench.models.forward import Layout, Rows, collate
from workbench.models.score_table import PairScore
from workbench.models.tokens import Encoded, encode_pair
from workbench.tasks import AGE, EPOCHS, NEW, Anchor, SliceWeights
from workbench.training.lanes import divided


@dataclass(frozen=True, slots=True)
class TrainRow:
    """One pair, ready to train on.

    Attributes:
        parent: cached log-probs under the policy that training starts from, nats.
        reference: cached log-probs under the geometric reference, nats (chosen, rejected).
        anchors: the anchors' weights for this pair, in their order.
        old: whether an earlier round trained on it.
        epochs: those it is trained on in, from 1; none are all.
        good: whether the chosen answer is, where answers stand by themselves, each beside one that belongs to another prompt.
    """

    key: str
    chosen: Encoded
    rejected: Encoded
    weight: float
    parent: PairScore
    reference: tuple[float, float]
    anchors: tuple[float, ...]
    old: bool
    epochs: tuple[int, ...] = ()
    good: bool = True


def train_rows(
    pairs: Sequence[Pair],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    parent: dict[str, PairScore],
    anchors: Sequence[tuple[Anchor, dict[str, PairScore]]],
    by_slice: SliceWeights | None = None,
) -> list[TrainRow]:
    """Rows by pair key. Pairs whose prompt fills `max_length` are left out, as they were in scoring.

    Raises:
        WiringError: a pair has no cached score, or one whose length differs from what would be trained.
    """
    rows: list[TrainRow] = []
    for pair in sorted(pairs, key=lambda p: p.key):
        encoded = encode_pair(tokenizer, pair, max_length=max_length)
        if encoded is None:
            continue
        lengths = (len(encoded.chosen.completion), len(encoded.rejected.completion))
        for name, table in (("parent", parent), *((f"anchor {a.policy.digest[:12]}", t) for a, t in anchors)):
            score = table.get(pair.key)
            if score is None or (score.chosen_tokens, score.rejected_tokens) != lengths:
                raise WiringError(
                    f"pair {pair.key[:12]}: the scores of the {name} are "
                    f"{'missing' if score is None else f'for {score[2:]} tokens, not {lengths}'}; tokenizer, chat "
                    "template or max_length differ from when it was scored; plan the round again"
                )
        weights = weights_for(pair, [anchor for anchor, _ in anchors], by_slice)
        weighted = [Weighted(_logps(table[pair.key]), w) for w, (_, table) in zip(weights, anchors, strict=True)]
        reference = geometric_reference(weighted)
        rows.append(
            TrainRow(
                key=pair.key,
                chosen=encoded.chosen,
                rejected=encoded.rejected,
                weight=pair.weight,
                parent=parent[pair.key],
                reference=(float(reference.chosen), float(reference.rejected)),
                anchors=weights,
                old=pair.slices.get(AGE, NEW) != NEW,
                epochs=tuple(map(int, pair.slices.get(EPOCHS, "").split())),
                good=pair.slices.get(SIDE, GOOD) == GOOD,
            )
        )
    return rows


def weights_for(pair: Pair, anchors: Sequence[Anchor], by_slice: SliceWeights | None) -> tuple[float, ...]:
    """The anchors' weights for one pair, in their order."""
    own = tuple(anchor.weight for anchor in anchors)
    return by_slice.weights.get(pair.slices.get(by_slice.slice, ""), own) if by_slice else own


def in_order(rows: Sequence[TrainRow], *, epochs: int, seed: int) -> list[TrainRow]:
    """Every epoch's permutation, one after the other: what is trained on, and when, is a list."""
    rng = np.random.default_rng(seed)
    turns = ((epoch, rows[i]) for epoch in range(1, epochs + 1) for i in rng.permutation(len(rows)))
    return [row for epoch, row in turns if not row.epochs or epoch in row.epochs]


@dataclass(frozen=True, slots=True)
class PairBatch:
    """A batch of pairs as tensors: its examples are all chosen answers, then all rejected ones.

    Attributes:
        start_margin: D of the policy that training starts from, nats, shape (pairs,).
        anchors: the anchors' weights for each pair, shape (pairs, anchors).
        old: whether an earlier round trained on the pair, shape (pairs,).
        good: whether the chosen answer is, where answers stand by themselves, shape (pairs,).
    """

    rows: Rows
    reference: PairLogps
    lengths: PairLogps
    weights: torch.Tensor
    start_margin: torch.Tensor
    anchors: torch.Tensor
    old: torch.Tensor
    good: torch.Tensor


SIMILAR = 0.5
"""Rows that are padded to one length are at least this share of it."""


def passes(rows: Sequence[dict[str, Any]], *, layout: Layout, tokens: int) -> list[list[int]]:
    """The pairs of a batch in forward passes of pairs of similar length, longest first.

    Args:
        rows: of one batch, as columns.
        layout: of the passes; packed rows need no similar lengths.
        tokens: most of one pass, padding included; a single pair may have more.
    """
    lengths = [_padded(row, layout) for row in rows]
    found: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: (-lengths[i], i)):
        if found and _fits([lengths[k] for k in (*found[-1], i)], layout=layout, tokens=tokens):
            found[-1].append(i)
        else:
            found.append([i])
    return found


def batch_tokens(rows: Sequence[dict[str, Any]], layout: Layout) -> int:
    """Tokens of a batch in one pass, padding included."""
    lengths = [_padded(row, layout) for row in rows]
    return sum(lengths) if layout == "packed" else len(lengths) * max(lengths)


def _fits(lengths: Sequence[int], *, layout: Layout, tokens: int) -> bool:
    if layout == "packed":
        return sum(lengths) <= tokens
    return len(lengths) * lengths[0] <= tokens and lengths[-1] >= SIMILAR * lengths[0]


def _padded(row: dict[str, Any], layout: Layout) -> int:
    """Tokens of a pair laid out alone."""
    prompt, chosen, rejected = (len(row[name]) for name in ("prompt", "chosen", "rejected"))
    return 2 * (prompt + max(chosen, rejected)) if layout == "plain" else prompt + chosen + rejected


class PairCollator:
    """Makes a batch of rows; TRL calls it, so what it returns are plain dictionaries.

    Args:
        pad_id: fills rows.
        layout: of the rows.
        tokens: most tokens of one forward pass, padding included.
        whole: lay every batch out in one pass, however many tokens it has.

    Attributes:
        in_lanes: divide every pass into some that are computed side by side.
    """

    def __init__(self, pad_id: int, *, layout: Layout, tokens: int, whole: bool = False) -> None:
        self._pad_id, self._whole = pad_id, whole
        self.layout: Layout = layout
        self.tokens = tokens
        self.in_lanes = False

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
        """Lay out one batch in passes; those of the same `turn` fit into memory together."""
        found = [[*range(len(rows))]] if self._whole else passes(rows, layout=self.layout, tokens=self.tokens)
        parts = [(turn, part) for turn, pass_ in enumerate(found) for part in self._parts([rows[i] for i in pass_])]
        return {"passes": [{**self.at_once(part), "turn": turn} for turn, part in parts]}

    def _parts(self, rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        if not self.in_lanes:
            return [list(rows)]
        lengths = [_padded(row, self.layout) for row in rows]
        return [[rows[i] for i in part] for part in divided(lengths, [tuple(row["prompt"]) for row in rows])]

    def at_once(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Lay out pairs for one pass."""
        sides = [Encoded(tuple(r["prompt"]), tuple(r[side])) for side in ("chosen", "rejected") for r in rows]
        laid_out = collate(sides, pad_id=self._pad_id, layout=self.layout)
        numbers = {
            name: torch.tensor([r[name] for r in rows], dtype=torch.float32)
            for name in ("reference_chosen", "reference_rejected", "weight", "start_margin", "anchors", "old", "good")
        }
        return {**laid_out._asdict(), **numbers}


def as_columns(rows: Sequence[TrainRow]) -> list[dict[str, Any]]:
    """Rows as the plain values a dataset holds."""
    return [
        {
            "prompt": list(r.chosen.prompt),
            "chosen": list(r.chosen.completion),
            "rejected": list(r.rejected.completion),
            "reference_chosen": r.reference[0],
            "reference_rejected": r.reference[1],
            "weight": r.weight,
            "start_margin": r.parent.margin,
            "anchors": list(r.anchors),
            "old": float(r.old),
            "good": float(r.good),
        }
        for r in rows
    ]


def batch_of(inputs: dict[str, Any]) -> PairBatch:
    """What `PairCollator.at_once` made, with names."""
    rows = Rows(**{name: inputs[name] for name in Rows._fields})
    chosen, rejected = rows.example.bincount().chunk(2)
    return PairBatch(
        rows=rows,
        reference=PairLogps(inputs["reference_chosen"], inputs["reference_rejected"]),
        lengths=PairLogps(chosen, rejected),
        weights=inputs["weight"],
        start_margin=inputs["start_margin"],
        anchors=inputs["anchors"],
        old=inputs["old"] > 0,
        good=inputs["good"] > 0,
    )


def _logps(score: PairScore) -> PairLogps:
    return PairLogps(torch.tensor(score.chosen, dtype=torch.float64), torch.tensor(score.rejected, dtype=torch.float64))
