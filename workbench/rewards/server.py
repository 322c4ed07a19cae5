"""Rewards from a server: prompts and answers are posted to it as JSON, numbers come back."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from workbench.errors import RewardError
from workbench.rewards.interface import Reward, Said

TRIES, WAIT_S = 3, 1.0


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
        why = ""
        for attempt in range(TRIES):
            if attempt:
                sleep(WAIT_S * 2**attempt)
            try:
                answer = httpx.post(address, json={"answers": rows}, timeout=timeout_s)
                answer.raise_for_status()
                found: Any = answer.json()
                return found["rewards"]
            except httpx.HTTPError as error:
                why = f"{type(error).__name__}: {error}"
            except (ValueError, KeyError, TypeError) as error:
                raise RewardError(f'reward {address}: no JSON with "rewards" came back: {error!r}') from error
        raise RewardError(
            f"reward {address}: {TRIES} tries failed, the last with {why}; nothing is lost: start the server, then run the "
            "round again"
        )

    return run
