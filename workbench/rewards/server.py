"""Rewards from a server: prompts and answers are posted to it as JSON, numbers come back."""

import time
from collections.abc import Callable, Sequence

from workbench.errors import RewardError
from workbench.posting import UnansweredError, asked
from workbench.rewards.interface import Reward, Said


def by_server(address: str, *, timeout_s: float, sleep: Callable[[float], None] = time.sleep) -> Reward:
    """A reward that posts `{"answers": [{"messages": […], "answer": "…", "slices": {…}}, …]}` and reads `{"rewards": […]}`.

    Args:
        address: of the server. Prompts and answers are sent there.
        timeout_s: how long it may take, each time.
        sleep: waits before another try.
    """

    def run(said: Sequence[Said]) -> list[float]:
        rows = [{"messages": [m._asdict() for m in one.prompt.messages], "answer": one.text, "slices": dict(one.slices)}
                for one in said]  # fmt: skip
        try:
            return asked(address, {"answers": rows}, timeout_s=timeout_s, sleep=sleep)["rewards"]
        except UnansweredError as error:
            raise RewardError(
                f"reward {address}: {error}; start the server, then run the round again: it goes on from its last checkpoint"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise RewardError(f'reward {address}: no JSON with "rewards" came back: {error!r}') from error

    return run
