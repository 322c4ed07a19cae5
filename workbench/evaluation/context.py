"""What a suite is given."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from workbench.config import EvaluationSettings
from workbench.models.load import Family
from workbench.tasks import Item, PolicyRef


@dataclass(frozen=True, slots=True)
class Context:
    """One policy, loaded, and how it is to be measured.

    Attributes:
        family: call `family.using(policy)` for the model.
        tell: call with items done and items in all.
    """

    family: Family
    policy: PolicyRef
    settings: EvaluationSettings
    tell: Callable[[int, int], None]


Suite = Callable[[Context], Iterable[Item]]
"""Measures one policy on items of its own; made elsewhere, it registers as entry point `continual_alignment.suites`."""
