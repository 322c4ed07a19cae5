"""Chosen and rejected travel together."""

from typing import NamedTuple

from torch import Tensor


def require_same_shape(**tensors: Tensor) -> None:
    """Refuse silent broadcasting.

    Raises:
        ValueError: the tensors differ in shape; lists every name with its shape.
    """
    if len({t.shape for t in tensors.values()}) > 1:
        listing = ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items())
        raise ValueError(f"tensors must share one shape, got {listing}")


class PairLogps(NamedTuple):
    """Sequence log-probabilities of one batch of pairs (nats, summed over completion tokens).

    Attributes:
        chosen: shape (pairs,).
        rejected: shape (pairs,), same dtype and device.
    """

    chosen: Tensor
    rejected: Tensor

    @property
    def margin(self) -> Tensor:
        """D = log p(chosen) - log p(rejected), nats, shape (pairs,)."""
        return self.chosen - self.rejected
