"""Updates kept orthogonal to what earlier rounds did: O-LoRA, for adapters that are carried on."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from workbench.models.weights import Weights
from workbench.training.penalties import Pass, Penalty

Pairs = dict[str, tuple[Tensor, Tensor]]
"""A and B of each adapted matrix, by the name of A."""


def orthogonal(line: Sequence[Weights], weight: float) -> Penalty | None:
    """Weight x sum_i |dW_i dW^T|^2 / |dW_i dW_i^T|^2, over all matrices and earlier rounds i; None without one.

    O-LoRA (Wang et al., arXiv 2310.14152) begins an adapter for every round and adds L_orth = sum_i |A_i A^T|^2, which is 0
    where the rounds read from orthogonal directions. Here one adapter is carried on, and its A begins as the parent's own:
    what is compared are the updates, dW = B A - B_0 A_0 of this round and dW_i of the i-th. A round that does once more what
    an earlier one did pays the weight; the first step pays nothing.

    Args:
        line: the adapters of the lineage, the base first, the one that training starts from last.
        weight: of the term.
    """
    rows = [found for before, after in pairwise(line) if (found := _directions(_pairs(before), _pairs(after)))]
    if not rows:
        return None
    start = _pairs(line[-1])
    read = {name: torch.cat([each[name] for each in rows]) for name in start}
    device = next(iter(start.values()))[0].device.type
    read_at_start = {name: read[name] @ a.t() for name, (a, _) in start.items()}

    def penalty(given: Pass) -> Tensor:
        parameters: dict[str, Any] = dict(given.model.named_parameters())
        parts: list[Tensor] = []
        # Under autocast the small differences would be lost.
        with torch.autocast(device, enabled=False):
            for name, (a, b) in start.items():
                new_a, new_b = parameters[name], parameters[_b(name)]
                moved = (read[name] @ (new_a - a).t()) @ new_b.t() + read_at_start[name] @ (new_b - b).t()
                parts.append((moved**2).sum())
        return weight * torch.stack(parts).sum()

    return penalty


def _directions(before: Pairs, after: Pairs) -> Weights:
    """Rows E of each matrix with E^T E = dW^T dW, so that |E dW^T| = |dW_i dW^T|, scaled; nothing where nothing moved.

    dW = [B - B_0, B_0] [A; A - A_0] has twice the rank of an adapter; E is the triangle of the first factor times the second.
    """
    found: Weights = {}
    for name, (a, b) in after.items():
        old_a, old_b = before[name]
        _, triangle = torch.linalg.qr(torch.cat([b - old_b, old_b], dim=1), mode="r")
        found[name] = triangle @ torch.cat([a, a - old_a])
    size = sum(float(((e @ e.t()) ** 2).sum()) for e in found.values()) ** 0.5
    return {name: e / size for name, e in found.items()} if size else {}


def _pairs(weights: Weights) -> Pairs:
    return {name: (a, weights[_b(name)]) for name, a in weights.items() if ".lora_A." in name}


def _b(name: str) -> str:
    return name.replace(".lora_A.", ".lora_B.")
