"""Rewards that need no model: guidelines anybody can check, and functions of installed packages."""

from collections.abc import Sequence
from importlib.metadata import entry_points

from preference_data.simulate import GUIDELINES, asked_in
from workbench.errors import ConfigError
from workbench.rewards.interface import Reward, Said

GROUP = "continual_alignment.rewards"
"""Entry points of rewards: functions from `Said` records to numbers."""


def by_guideline(name: str) -> Reward:
    """A guideline's score in units of its margin, so that one more is one answer clearly better.

    Raises:
        ConfigError: there is no such guideline.
    """
    if name not in GUIDELINES:
        raise ConfigError(f"reward rule:{name}: unknown guideline; known guidelines: {', '.join(GUIDELINES)}")
    rule = GUIDELINES[name]

    def run(said: Sequence[Said]) -> list[float]:
        return [rule.score(asked_in(one.prompt), one.text) / rule.margin for one in said]

    return run


def by_code(name: str) -> Reward:
    """A function that an installed package registers.

    Raises:
        ConfigError: no package registers it.
    """
    known = {point.name: point for point in entry_points(group=GROUP)}
    if name not in known:
        listed = ", ".join(known) or "none"
        raise ConfigError(f"reward code:{name}: no installed package registers it under {GROUP}; registered: {listed}")
    return known[name].load()
