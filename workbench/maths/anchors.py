"""Several frozen policies as one reference.

``max E[r] - sum_k beta_k KL(pi || pi_k)`` with ``beta_k = beta w_k`` and ``sum_k w_k = 1`` has the optimum
``pi ∝ prod_k pi_k^(w_k) e^(r / beta)`` (arXiv 2502.01203). In a loss of the difference between two answers to the
same prompt the normaliser of that product cancels, so the weighted mean of the anchors' log-probabilities is used
as if it were one reference policy's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from workbench.maths.pairs import PairLogps, require_same_shape


class Weighted(NamedTuple):
    """Log-probabilities under one anchor, and its weight."""

    logps: PairLogps
    weight: float


def geometric_reference(anchors: Sequence[Weighted]) -> PairLogps:
    """Unnormalised log-probabilities of the weighted geometric mean of the anchors.

    Args:
        anchors: at least one; weights sum to 1; all tensors of shape (pairs,).

    Returns:
        Chosen and rejected, nats, shape (pairs,), without gradient.

    Raises:
        ValueError: no anchors, weights that do not sum to 1, or shapes that differ.
    """
    if not anchors:
        raise ValueError("geometric reference: no anchors given; expected at least one")
    total = sum(a.weight for a in anchors)
    if abs(total - 1) > 1e-6:
        raise ValueError(f"geometric reference: weights must sum to 1, got {total:g}")
    require_same_shape(**{f"anchor_{i}_{side}": t for i, a in enumerate(anchors) for side, t in _sides(a.logps)})
    with torch.no_grad():
        return PairLogps(
            chosen=torch.stack([a.weight * a.logps.chosen for a in anchors]).sum(0),
            rejected=torch.stack([a.weight * a.logps.rejected for a in anchors]).sum(0),
        )


def _sides(logps: PairLogps) -> tuple[tuple[str, torch.Tensor], tuple[str, torch.Tensor]]:
    return (("chosen", logps.chosen), ("rejected", logps.rejected))
