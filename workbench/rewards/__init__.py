"""How good an answer is: rules and code, servers, models. All behind one function, all checked."""

from workbench.rewards.interface import Reward, Said, checked, gaps, total
from workbench.rewards.named import all_of, reward_named

__all__ = ["Reward", "Said", "all_of", "checked", "gaps", "reward_named", "total"]
