"""Rewards by what settings call them."""

from collections.abc import Sequence

from workbench.config import RewardSettings
from workbench.errors import ConfigError
from workbench.rewards.interface import Reward, checked, total
from workbench.rewards.rules import by_code, by_guideline
from workbench.rewards.server import by_server


def reward_named(settings: RewardSettings) -> Reward:
    """A reward, checked.

    Raises:
        ConfigError: there is none of that name.
    """
    kind, _, name = settings.by.partition(":")
    match kind:
        case "rule":
            found = by_guideline(name)
        case "code":
            found = by_code(name)
        case "http" | "https":
            found = by_server(settings.by, timeout_s=settings.timeout_s)
        case _:
            raise ConfigError(f"reward {settings.by!r}: unknown kind; expected rule:, code:, http:// or https://")
    return checked(settings.by, found)


def all_of(settings: Sequence[RewardSettings]) -> Reward:
    """Their weighted sum."""
    return total([(reward_named(one), one.weight) for one in settings])
