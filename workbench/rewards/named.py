"""Rewards by what settings call them."""

from collections.abc import Callable, Sequence

from workbench.config import RewardSettings
from workbench.errors import ConfigError
from workbench.rewards.interface import Reward, checked, total
from workbench.rewards.rules import by_code, by_guideline
from workbench.rewards.server import by_server

Models = Callable[[str], Reward]
"""Reward models by what stands behind `model:`."""


def no_models(name: str) -> Reward:
    """Where no workspace is, there is no reward model.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(f"reward model:{name}: reward models are known in a workspace alone; choose another reward")


def reward_named(settings: RewardSettings, models: Models = no_models) -> Reward:
    """A reward, checked.

    Args:
        settings: name it.
        models: finds reward models.

    Raises:
        ConfigError: there is none of that name.
    """
    kind, _, name = settings.by.partition(":")
    match kind:
        case "rule":
            found = by_guideline(name)
        case "code":
            found = by_code(name)
        case "model":
            found = models(name)
        case "http" | "https":
            found = by_server(settings.by, timeout_s=settings.timeout_s)
        case _:
            raise ConfigError(
                f"reward {settings.by!r}: unknown kind; expected rule:, code:, model:, http:// or https://"
            )
    return checked(settings.by, found)


def all_of(settings: Sequence[RewardSettings], models: Models = no_models) -> Reward:
    """Their weighted sum."""
    return total([(reward_named(one, models), one.weight) for one in settings])
