"""The server is killed under load, again and again; clients send the same judgement until it is confirmed."""

import asyncio
import random
import time
from collections.abc import Mapping
from typing import NamedTuple

import httpx

from workbench.bench.page_world import PROJECT, World


class Survived(NamedTuple):
    """What came of it, in judgements."""

    kills: int
    confirmed: int
    lost: int
    doubled: int


def kill_under_load(world: World, tokens: Mapping[str, str], *, kills: int) -> Survived:
    """Kill with SIGKILL at random moments and start again, while everybody judges without a pause."""
    return asyncio.run(_kill_under_load(world, tokens, kills))


async def _kill_under_load(world: World, tokens: Mapping[str, str], kills: int) -> Survived:
    confirmed, rng, over = set[int](), random.Random(0), asyncio.Event()
    process = await asyncio.to_thread(world.start)
    limits = httpx.Limits(max_connections=len(tokens), max_keepalive_connections=0)
    async with httpx.AsyncClient(
        base_url=world.address, headers={"origin": world.address}, timeout=30, limits=limits
    ) as client:
        people = [asyncio.create_task(_insist(client, token, confirmed, over)) for token in tokens.values()]
        for _ in range(kills):
            await asyncio.sleep(rng.uniform(0.3, 1.2))
            process.kill()
            await asyncio.to_thread(process.wait)
            process = await asyncio.to_thread(world.start)
        over.set()
        await asyncio.gather(*people)
    process.terminate()
    await asyncio.to_thread(process.wait)
    stored = world.leases_judged()
    return Survived(kills, len(confirmed), len(confirmed - set(stored)), len(stored) - len(set(stored)))


async def _insist(client: httpx.AsyncClient, token: str, confirmed: set[int], over: asyncio.Event) -> None:
    """Judge, sending each judgement until it is confirmed, until it is over and nothing waits."""
    cookie = {"cookie": f"session={token}"}
    while not over.is_set():
        taken = await _until_answered(client, "/api/take", {"project": PROJECT, "count": 4}, cookie)
        showings = taken.json().get("showings", ())
        if not showings:
            return
        for shown in showings:
            opinion = {"kind": "pairwise", "verdict": "first", "strength": 1 + shown["lease"] % 3}
            answer = await _until_answered(client, "/api/judge", {"lease": shown["lease"], "opinion": opinion}, cookie)
            if answer.status_code == httpx.codes.OK:
                confirmed.add(shown["lease"])


async def _until_answered(
    client: httpx.AsyncClient, path: str, body: Mapping[str, object], headers: Mapping[str, str]
) -> httpx.Response:
    end = time.monotonic() + 120
    while True:
        try:
            answer = await client.post(path, json=body, headers=dict(headers))
            if answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                return answer
        except httpx.HTTPError:
            if time.monotonic() > end:
                raise
        await asyncio.sleep(random.uniform(0.2, 0.4))  # 32 clients that ask without a pause would starve the start
