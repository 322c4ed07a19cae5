"""Merges of a child with the policy it started from, beside their average: SLERP, TIES and DARE.

They are of the weights that training changed: an adapter's factors A and B apart, as PEFT merges adapters (but for its `cat`
and `svd`), so that the product B A is merged exactly only where one factor did not move; full weights are merged exactly.
PEFT's merges take a whole adapter for the task's vector. Here it is what the round did to it, child - start: A begins at
random, and to drop parts of that, or to let its signs vote, says nothing of what was learned.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from peft.utils.merge_utils import calculate_majority_sign_mask, prune
from torch import Tensor

from workbench.config import AfterSettings
from workbench.maths import between, slerp
from workbench.models.weights import Weights

Merge = Callable[[str, float], Tensor]
"""A parameter's merged value, from its name and the start's share. A share of 0 is the child as it was trained."""


class Given(NamedTuple):
    """What merges need beside start and child.

    Attributes:
        origin: the base's weights, from which `slerp` measures; nothing of an adapter.
        updates: what each earlier round did, oldest first, the first one from nothing.
        seed: of what is dropped.
    """

    origin: Weights
    updates: Sequence[Weights]
    seed: int


NOTHING = Given({}, (), 0)


def merge_of(child: Weights, start: Weights, settings: AfterSettings, given: Given) -> Merge:
    """The merge that settings ask for."""
    if settings.merge == "slerp":

        def along_the_sphere(name: str, keep: float) -> Tensor:
            origin, end = given.origin[name], child[name]
            return origin + slerp(start[name] - origin, end - origin, keep) if keep else end

        return along_the_sphere
    end = child if settings.merge == "linear" else _thinned(child, start, settings, given)
    return lambda name, keep: between(start[name], end[name], keep) if keep else child[name]


def _thinned(child: Weights, start: Weights, settings: AfterSettings, given: Given) -> Weights:
    """The child of an update of which parts were dropped; the same ones whatever share is tried, and on every device."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(given.seed)
        return {
            name: start[name] + kept(end - start[name], _voters(name, given.updates), settings).to(end)
            for name, end in child.items()
        }


def _voters(name: str, updates: Sequence[Weights]) -> list[Tensor]:
    """Earlier updates of a parameter; the first one of A is unknown, because nobody kept its random start."""
    return [each[name] for each in updates[1 if ".lora_A." in name else 0 :]]


def kept(update: Tensor, earlier: Sequence[Tensor], settings: AfterSettings) -> Tensor:
    """What is left of a round's update.

    TIES (Yadav et al., arXiv 2306.01708, algorithm 1) trims every round's update to its largest numbers and elects the sign of
    their sum; the new update yields where its sign is another. Its last step, the mean of those that agree, is left out:
    earlier updates lie in the start as their sum, and stay. DARE (Yu et al., arXiv 2311.03099) drops numbers at random and
    divides what is left by the share kept, here instead of trimming.
    """

    def thin(each: Tensor) -> Tensor:
        if settings.merge == "ties" or settings.density == 1:
            return largest(each.cpu(), settings.density)
        return prune(each.cpu(), settings.density, method="random", rescale=True)

    mine = thin(update)
    if settings.merge == "dare_linear":
        return mine
    return mine * calculate_majority_sign_mask(torch.stack([mine, *map(thin, earlier)]))[0]


def largest(tensor: Tensor, density: float) -> Tensor:
    """A tensor without all but this share of its numbers, the largest ones."""
    return prune(tensor, density, method="magnitude") if density < 1 else tensor
