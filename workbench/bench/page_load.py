"""People who judge through HTTP, making the page's own calls: take when few are left, judge, wait, again."""

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from workbench.bench.page_world import PROJECT

FIRST_AHEAD, MORE_AHEAD, MOST_AHEAD = 2, 2, 6
"""Items prepared, as the page has it."""


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
        people = (_Person(client, token, load, random.Random(name)) for name, token in tokens.items())
        await asyncio.gather(*(each.work(end, think_s) for each in people))
    return load


@dataclass(slots=True)
class _Person:
    client: httpx.AsyncClient
    token: str
    load: Load
    rng: random.Random
    buffer: list[int] = field(default_factory=list[int])
    seen: set[int] = field(default_factory=set[int])
    ahead: int = FIRST_AHEAD

    async def work(self, end: float, think_s: float) -> None:
        await asyncio.sleep(self.rng.uniform(0, think_s))
        while time.monotonic() < end:
            if len(self.buffer) < self.ahead / 2:
                await self.take()
            if self.buffer:
                await self.judge(self.buffer.pop(0))
            await asyncio.sleep(self.rng.uniform(0.5, 1.5) * think_s)

    async def take(self) -> None:
        taken = await self.send("/api/take", {"project": PROJECT, "count": self.ahead})
        self.ahead = min(self.ahead + MORE_AHEAD, MOST_AHEAD)
        self.buffer += [each["lease"] for each in (taken or {}).get("showings", ()) if each["lease"] not in self.seen]
        self.seen |= set(self.buffer)

    async def judge(self, lease: int) -> None:
        verdict, strength = self.rng.choice(("first", "second")), self.rng.randint(1, 3)
        said = {"lease": lease, "opinion": {"kind": "pairwise", "verdict": verdict, "strength": strength}}
        start = time.perf_counter()
        if await self.send("/api/judge", said):
            self.load.submit_s.append(time.perf_counter() - start)
            self.load.confirmed.add(lease)

    async def send(self, path: str, body: Mapping[str, Any]) -> Any:
        try:
            answer = await self.client.post(path, json=body, headers={"cookie": f"session={self.token}"})
        except httpx.HTTPError as error:
            self.load.errors.append(f"{path}: {type(error).__name__}")
            return None
        if answer.status_code != httpx.codes.OK:
            self.load.errors.append(f"{path}: {answer.status_code} {answer.text[:100]}")
            return None
        return answer.json()
