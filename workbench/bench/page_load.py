"""People who judge through HTTP, making the page's own calls: take when few are left, judge, wait, again."""

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from workbench.bench.page_world import PROJECT

AHEAD, REFILL = 6, 3
"""As the page has it."""


@dataclass(slots=True)
class Load:
    """What came of it.

    Attributes:
        submit_s: seconds from sending a judgement to its confirmation, each.
        confirmed: leases whose judgement the server said was stored.
        errors: answers that were neither a success nor an honest refusal, in words.
    """

    submit_s: list[float] = field(default_factory=list[float])
    confirmed: set[int] = field(default_factory=set[int])
    errors: list[str] = field(default_factory=list[str])


async def run_people(address: str, tokens: Mapping[str, str], *, seconds: float, think_s: float) -> Load:
    """Everybody judges for some time, thinking `think_s` on average, never in step with each other.

    Args:
        address: of the page.
        tokens: session of each person.
        seconds: how long.
        think_s: mean time between two judgements of a person; uniform between half and one and a half of it.
    """
    load = Load()
    end = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=len(tokens), max_keepalive_connections=len(tokens))
    async with httpx.AsyncClient(base_url=address, headers={"origin": address}, timeout=30, limits=limits) as client:
        work = (_person(client, token, load, random.Random(name), end=end, think_s=think_s)
                for name, token in tokens.items())  # fmt: skip
        await asyncio.gather(*work)
    return load


async def _person(
    client: httpx.AsyncClient, token: str, load: Load, rng: random.Random, *, end: float, think_s: float
) -> None:
    cookie = {"cookie": f"session={token}"}
    buffer: list[int] = []
    seen = set[int]()
    await asyncio.sleep(rng.uniform(0, think_s))
    while time.monotonic() < end:
        if len(buffer) <= REFILL:
            taken = await _send(client, "/api/take", {"project": PROJECT, "count": AHEAD}, cookie, load)
            buffer += [each["lease"] for each in (taken or {}).get("showings", ()) if each["lease"] not in seen]
            seen |= set(buffer)
        if buffer:
            await judge(client, buffer.pop(0), cookie, load, rng)
        await asyncio.sleep(rng.uniform(0.5, 1.5) * think_s)


async def judge(
    client: httpx.AsyncClient, lease: int, cookie: Mapping[str, str], load: Load, rng: random.Random
) -> None:
    """Send one judgement and note how long its confirmation took."""
    side = rng.choice(("first", "second"))
    said = {"lease": lease, "opinion": {"kind": "pairwise", "verdict": side, "strength": rng.randint(1, 3)}}
    start = time.perf_counter()
    if await _send(client, "/api/judge", said, cookie, load):
        load.submit_s.append(time.perf_counter() - start)
        load.confirmed.add(lease)


async def _send(
    client: httpx.AsyncClient, path: str, body: Mapping[str, Any], headers: Mapping[str, str], load: Load
) -> Any:
    try:
        answer = await client.post(path, json=body, headers=dict(headers))
    except httpx.HTTPError as error:
        load.errors.append(f"{path}: {type(error).__name__}")
        return None
    if answer.status_code != httpx.codes.OK:
        load.errors.append(f"{path}: {answer.status_code} {answer.text[:100]}")
        return None
    return answer.json()
