"""Every round proves its wiring before it trains.

The expected first loss is known from cached scores: ln 2 for the sigmoid loss where the parent is the only anchor,
otherwise the loss at the predicted logits. A right loss alone is not enough (an adapter thrown away in round 2 still
starts at ln 2 against itself), so log-probabilities are compared one by one as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from workbench.config import NumericsSettings, ObjectiveSettings
from workbench.errors import WiringError
from workbench.maths import PairLogps
from workbench.models.forward import completion_logps
from workbench.models.load import Family
from workbench.models.numerics import apply_numerics, loss_tolerance, tolerance
from workbench.models.score_table import PairScore
from workbench.tasks import Anchor, PolicyRef
from workbench.training.batches import TrainRow
from workbench.training.objective import objective

PROOF_PAIRS = 8
"""Pairs compared; the first ones of the first epoch."""
FEWER_PAIRS = 4
"""Of these, how many are put to each further anchor (the shortest), and to the child at the end: other weights show in any
answer."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found before the first step.

    Attributes:
        expected_loss, measured_loss: mean over the proof's pairs.
        largest_gap: largest difference of a log-probability from its cached value, nats.
    """

    expected_loss: float
    measured_loss: float
    largest_gap: float


def prove_anchors(
    family: Family,
    rows: Sequence[TrainRow],
    tables: Sequence[tuple[str, PolicyRef, dict[str, PairScore]]],
    numerics: NumericsSettings,
) -> float:
    """Score the proof's pairs afresh under other policies than the one to be trained and compare with the cache.

    Args:
        family: loaded from the base of the plan.
        rows: the proof's pairs.
        tables: for each policy its name in messages, where it is, and its cached scores.
        numerics: precision and threads of the round.

    Returns:
        The largest gap, nats.

    Raises:
        WiringError: a cached score is not this policy's.
    """
    examples = [side for r in rows for side in (r.chosen, r.rejected)]
    largest = 0.0
    for name, policy, table in tables:
        with apply_numerics(numerics), family.using(policy) as model:
            fresh = completion_logps(model, family.collate(examples)).tolist()
        cached = [value for r in rows for value in table[r.key][:2]]
        gap = max(abs(a - b) for a, b in zip(fresh, cached, strict=True))
        if not gap <= tolerance(numerics):
            raise WiringError(
                f"{name} ({policy.digest[:12]}): cached scores differ from the policy's by {gap:.4g} nats, allowed "
                f"{tolerance(numerics):g}; the cache is stale or the weights were replaced; "
                "run `workbench gc --scores` and start the round again"
            )
        largest = max(largest, gap)
    return largest


def prove_start(
    measured: PairLogps,
    rows: Sequence[TrainRow],
    settings: ObjectiveSettings,
    numerics: NumericsSettings,
    *,
    gap: float,
) -> Proof:
    """Compare the policy about to be trained with the parent's cached scores, and the first loss with its value.

    Raises:
        WiringError: the starting policy is not the parent, or the loss is not the predicted one.
    """
    parent = PairLogps(
        torch.tensor([r.parent.chosen for r in rows]), torch.tensor([r.parent.rejected for r in rows])
    )  # fmt: skip
    start_gap = float(torch.cat([measured.chosen - parent.chosen, measured.rejected - parent.rejected]).abs().max())
    if not start_gap <= tolerance(numerics):
        raise WiringError(
            f"the policy about to be trained is not the parent: log-probabilities differ by {start_gap:.4g} nats, "
            f"allowed {tolerance(numerics):g}; the parent's adapter was dropped or other weights were loaded"
        )
    expected, found = _loss(parent, rows, settings), _loss(measured, rows, settings)
    allowed = loss_tolerance(numerics) + _steepness(parent, rows, settings, by=2 * start_gap)
    if not abs(expected - found) <= allowed:
        raise WiringError(
            f"first loss is {found:.6f}, expected {expected:.6f} from the cached scores (allowed difference "
            f"{allowed:g}); the reference is not the plan's anchors"
        )
    return Proof(expected, found, max(gap, start_gap))


def _steepness(parent: PairLogps, rows: Sequence[TrainRow], settings: ObjectiveSettings, *, by: float) -> float:
    """How much the loss changes if all margins move together by what was found to be rounding, nats."""
    moved = [_loss(parent._replace(chosen=parent.chosen + sign * by), rows, settings) for sign in (-1, 1)]
    here = _loss(parent, rows, settings)
    return max(abs(there - here) for there in moved)


SAME_NATS = 1e-2
"""Largest difference between the policy as it was trained and as it was saved: the same weights, in the same batch."""


def prove_child(
    family: Family, rows: Sequence[TrainRow], child: PolicyRef, *, trained: PairLogps, numerics: NumericsSettings
) -> float:
    """Load what was saved and compare it with the policy the last steps were computed with.

    Args:
        family: loaded from the base of the plan.
        rows: the pairs compared.
        child: the saved weights.
        trained: log-probs under the policy in training, after its last step.
        numerics: precision and threads of the round.

    Returns:
        The largest gap, nats.

    Raises:
        WiringError: the steps were computed with other weights than were saved.
    """
    examples = [*(r.chosen for r in rows), *(r.rejected for r in rows)]
    with apply_numerics(numerics), family.using(child) as model:
        saved = completion_logps(model, family.collate(examples)).cpu()
    gap = float((saved - torch.cat([*trained])).abs().max())
    if not gap <= SAME_NATS:
        raise WiringError(
            f"the saved policy is not the one that was trained: log-probabilities differ by {gap:.4g} nats, allowed "
            f"{SAME_NATS:g}; the steps used weights of another time; nothing of this round was promoted; "
            "use numerics.dtype = 'float32' and report it"
        )
    return gap


def prove_reference(rows: Sequence[TrainRow], anchors: Sequence[tuple[Anchor, dict[str, PairScore]]]) -> None:
    """Recompute the reference of every row from the anchors' tables.

    Raises:
        WiringError: a row's reference is not the weighted mean of the plan's anchors.
    """
    for row in rows:
        for side, name in enumerate(("chosen", "rejected")):
            weighted = zip(row.anchors, anchors, strict=True)
            expected = sum(weight * table[row.key][side] for weight, (_, table) in weighted)
            if not abs(row.reference[side] - expected) <= 1e-6 * max(1.0, abs(expected)):
                raise WiringError(
                    f"pair {row.key[:12]}: reference log p({name}) is {row.reference[side]:.6f}, the plan's anchors "
                    f"give {expected:.6f}; the reference is not the one planned"
                )


def _loss(policy: PairLogps, rows: Sequence[TrainRow], settings: ObjectiveSettings) -> float:
    reference = PairLogps(*(torch.tensor([r.reference[i] for r in rows]) for i in (0, 1)))
    lengths = PairLogps(
        torch.tensor([len(r.chosen.completion) for r in rows]), torch.tensor([len(r.rejected.completion) for r in rows])
    )  # fmt: skip
    weights = torch.tensor([r.weight for r in rows])
    good = torch.tensor([r.good for r in rows])
    return float(objective(policy, reference, lengths=lengths, weights=weights, good=good, settings=settings).total)
