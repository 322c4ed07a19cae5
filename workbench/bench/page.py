"""`workbench bench page`: the annotation page under its real server, a real browser, load and kills."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import psutil
from scipy.stats import binomtest

from preference_data.leases import side_order
from workbench.bench.figures import Figure, quantile
from workbench.bench.page_browser import Visitor, chromium
from workbench.bench.page_kills import kill_under_load
from workbench.bench.page_load import Load, run_people
from workbench.bench.page_world import World, loads, memory_mb

SHOWS = 1000


class Scale(NamedTuple):
    """How much is done."""

    items: int
    people: int
    seconds: float
    kills: int
    presses: int


FULL = Scale(items=6000, people=200, seconds=90, kills=100, presses=100)
QUICK = Scale(items=300, people=12, seconds=4, kills=2, presses=5)


def measure(tell: Callable[[str], None], *, quick: bool) -> list[Figure]:
    """All figures of the page; `tell` is called with what is being done."""
    scale = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        tell(f"filling a store with {scale.items} items and {scale.people} people")
        world = World(Path(folder), items=scale.items, overlap=3, people=scale.people)
        with world.serving() as server:
            tell(f"one browser, {2 * scale.presses} key presses")
            browsing = list(_browse(world, server, scale))
        with world.serving() as server:
            tell(f"{scale.people} people for {scale.seconds:g} s")
            loaded = list(_load(world, server, scale))
        tell(f"{scale.kills} kills under load")
        survived = list(_kill(world, scale))
    return [*browsing, *loaded, *survived, _sides()]


def _browse(world: World, server: psutil.Process, scale: Scale) -> Iterator[Figure]:
    people = dict(islice(world.tokens.items(), 1, 9))
    token = world.tokens["person-0"]
    with chromium() as running, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield Figure("page process idle, MB", memory_mb(server), 300)
        visitor = Visitor(running, world.address, token)
        yield Figure("first page usable, s", visitor.usable_s, 2, note="navigation to the first pair, one visit")
        warm = visitor.presses(scale.presses, think_s=0.3)
        yield Figure("key to next pair painted, prefetched, p95 ms", quantile(warm, 0.95), 50, note=f"n={len(warm)}")
        beside = pool.submit(load_people, world.address, people, scale.presses * 0.6 + 3, 0.5)
        cold = visitor.presses(scale.presses, think_s=0.3, cold=True)
        yield Figure("key to next pair painted, cold, p95 ms", quantile(cold, 0.95), 200,
                     note=f"n={len(cold)}, 8 people beside it with 0.5 s think time")  # fmt: skip
        durable = [1000 * each for each in beside.result().submit_s]
        yield Figure(
            "judgement durable, p95 ms", quantile(durable, 0.95), 150, note=f"n={len(durable)}, those 8 people"
        )
        hosts, found = set(visitor.hosts), visitor.violations()
        dark = Visitor(running, world.address, token, color_scheme="dark")
        found += dark.violations()
        outside = (hosts | dark.hosts) - {"127.0.0.1"}
        yield Figure("hosts outside loopback asked", len(outside), 0, note=", ".join(sorted(outside)))
        yield Figure("axe-core serious or critical, light and dark", len(found), 0, note=", ".join(found))


def load_people(address: str, tokens: dict[str, str], seconds: float, think_s: float) -> Load:
    """`run_people` for another process."""
    return asyncio.run(run_people(address, tokens, seconds=seconds, think_s=think_s))


def _load(world: World, server: psutil.Process, scale: Scale) -> Iterator[Figure]:
    load = load_people(world.address, world.tokens, scale.seconds, 5)
    told = f"{scale.people} people, 5 s think time, {scale.seconds:g} s"
    yield Figure("errors under the annotators", len(load.errors), 0, note="; ".join(load.errors[:3]) or told)
    submit = [1000 * each for each in load.submit_s]
    yield Figure("submit under the annotators, p95 ms", quantile(submit, 0.95), 400, note=f"n={len(submit)}, {told}")
    yield Figure("page process under the annotators, MB", memory_mb(server), 450)
    yield Figure("torch in the page process", float(loads(server, "libtorch.*|torch")), 0)
    lost = load.confirmed - set(world.leases_judged())
    yield Figure("confirmed and not stored under the annotators", len(lost), 0)


def _kill(world: World, scale: Scale) -> Iterator[Figure]:
    survived = kill_under_load(world, dict(islice(world.tokens.items(), 32)), kills=scale.kills)
    told = f"{survived.confirmed} confirmed over {survived.kills} kills, 32 clients without a pause"
    yield Figure("confirmed and lost over kills", survived.lost, 0, note=told)
    yield Figure("doubled over kills", survived.doubled, 0, note=told)


def _sides() -> Figure:
    first = sum(side_order("person", f"comparison {number}", 2)[0] == 0 for number in range(SHOWS))
    return Figure("side balance, exact binomial p", binomtest(first, SHOWS).pvalue, 0.001, "at least",
                  note=f"{first} of {SHOWS} with the first answer on the left")  # fmt: skip


PARTS = {"all": measure}
