"""Divergences between next-token distributions."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from workbench.maths.pairs import require_same_shape


def kl_per_position(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """KL(p || q) at every position, exactly, over the whole vocabulary.

    Unlike sampled estimators (k1, k3 of Schulman's "Approximating KL divergence") it has no variance from the choice
    of the token, only from the choice of the positions. Computed in float32 whatever the inputs are.

    Args:
        p_logits: shape (positions, vocabulary), any constant offset.
        q_logits: the same shape.

    Returns:
        Nats, shape (positions,); 0 where the distributions agree, never below -1e-6 by rounding.

    Raises:
        ValueError: the shapes differ.
    """
    return kl_to_each(p_logits, [q_logits])[0].there


class BothWays(NamedTuple):
    """KL(p || q) and KL(q || p) at every position, nats, shape (positions,)."""

    there: Tensor
    back: Tensor


def kl_to_each(p_logits: Tensor, q_logits: Sequence[Tensor]) -> list[BothWays]:
    """The same to several q, in both directions; what depends on p alone is computed once.

    Raises:
        ValueError: the shapes differ.
    """
    require_same_shape(p_logits=p_logits, **{f"q_logits {i}": each for i, each in enumerate(q_logits)})
    p_log = p_logits.float().log_softmax(-1)
    p = p_log.exp()
    found: list[BothWays] = []
    for each in q_logits:
        q_log = each.float().log_softmax(-1)
        ratio = p_log - q_log
        found.append(BothWays((p * ratio).sum(-1), -(q_log.exp() * ratio).sum(-1)))
    return found
