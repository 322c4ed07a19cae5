"""How good an answer is: rules and code, servers, models. All behind one function, all checked."""

from workbench.rewards.interface import Reward, Said, checked, gaps, total
from workbench.rewards.named import Models, all_of, no_models, reward_named

__all__ = ["Models", "Reward", "Said", "all_of", "checked", "gaps", "no_models", "reward_named", "total"]
