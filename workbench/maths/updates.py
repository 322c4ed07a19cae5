"""Updates of weights as matrices: averages, what of an update is essential, what of it earlier updates used."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def between(start: Tensor, end: Tensor, keep: float) -> Tensor:
    """Keep x start + (1 - keep) x end: model averaging (Lin et al., arXiv 2309.06256), `keep` the older one's share."""
    return torch.lerp(end, start, keep)


def slerp(start: Tensor, end: Tensor, keep: float) -> Tensor:
    """From `end` towards `start` along the arc between them, `keep` of their angle: SLERP (WARP, arXiv 2406.16768).

    With the angle W between the two as vectors: (sin(keep W) start + sin((1 - keep) W) end) / sin W. Where they point the
    same way or against each other, or one is zero, it is `between`.
    """
    one, other = start.flatten().double(), end.flatten().double()
    lengths = math.sqrt(float((one @ one) * (other @ other)))
    angle = math.acos(max(-1.0, min(1.0, float(one @ other) / lengths))) if lengths else 0.0
    if math.sin(angle) < PARALLEL:
        return between(start, end, keep)
    found = (math.sin(keep * angle) * one + math.sin((1 - keep) * angle) * other) / math.sin(angle)
    return found.to(end.dtype).reshape(end.shape)


PARALLEL = 1e-6
"""Below this sine of their angle an arc between two vectors is their line, to rounding."""


def essential(update: Tensor, energy: float) -> Tensor:
    """The smallest number of singular components with this share of the squared singular values.

    Args:
        update: shape (rows, columns).
        energy: from 0 to 1; 1 keeps all.
    """
    u, s, v = _svd(update.double())
    shares = (s**2).cumsum(0) / (s**2).sum().clamp(min=torch.finfo(s.dtype).tiny)
    count = int((shares < energy - 1e-12).sum()) + 1
    return ((u[:, :count] * s[:count]) @ v[:count]).to(update.dtype)


def short_to_long(update: Tensor, earlier: Sequence[Tensor], *, overlap: float, energy: float) -> Tensor:
    """An update of which only `overlap` is left where it points along earlier ones: SLMC (LifeAlign, arXiv 2509.17183).

    The essential part U of the update is split by the span of the earlier updates, flattened, into U_p along it and U_o
    across it; U_o + overlap x U_p is returned.

    Args:
        update: shape (rows, columns).
        earlier: of the same shape.
        overlap: from 0 (orthogonal) to 1 (unchanged but for its essence).
        energy: as for `essential`.
    """
    kept = essential(update, energy)
    if not earlier:
        return kept
    stacked = torch.stack([each.flatten().double() for each in earlier])
    _, s, v = _svd(stacked)
    directions = v[s > s.max().clamp(min=1e-300) * 1e-9]
    flat = kept.flatten().double()
    along = directions.T @ (directions @ flat)
    return (flat - (1 - overlap) * along).to(update.dtype).reshape(update.shape)


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    linalg: Any = torch.linalg
    return linalg.svd(matrix, full_matrices=False)
