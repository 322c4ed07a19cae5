"""Asking a server: JSON is posted to it, JSON comes back; some tries where nobody answers."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from workbench.errors import WorkbenchError

TRIES, WAIT_S = 3, 1.0


class UnansweredError(WorkbenchError):
    """Nobody answered, however often; says what the last try met."""


def asked(
    address: str, body: Mapping[str, Any], *, timeout_s: float, sleep: Callable[[float], None] = time.sleep
) -> Any:
    """What a server answers.

    Args:
        address: of it; the body is sent there.
        body: as JSON values.
        timeout_s: how long it may take, each time.
        sleep: waits so many seconds before another try.

    Raises:
        UnansweredError: all tries failed.
        ValueError: what came back is no JSON.
    """
    why = ""
    for attempt in range(TRIES):
        if attempt:
            sleep(WAIT_S * 2**attempt)
        try:
            answer = httpx.post(address, json=body, timeout=timeout_s)
            answer.raise_for_status()
            return answer.json()
        except httpx.HTTPError as error:
            why = f"{type(error).__name__}: {error}"
    raise UnansweredError(f"{TRIES} tries failed, the last with {why}")
