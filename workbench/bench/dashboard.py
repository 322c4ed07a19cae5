"""`workbench bench dashboard`: the drift page over a large ledger, half an hour of live refresh, and how often the gate errs."""

import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from workbench.bench.dashboard_world import CONDITION, DashboardWorld, Scale
from workbench.bench.figures import Figure, quantile
from workbench.bench.gate_errors import measure_gate
from workbench.bench.page_browser import axe, chromium
from workbench.bench.page_world import loads, memory_mb
from workbench.reports.document import html_report
from workbench.rounds.progress import append_event
from workbench.tasks import Item, Progress

WORK = "WORKBENCH_BENCH_WORK"
"""Folder that keeps the made-up ledger between runs; a temporary one without it."""
PATHS = ("/drift", "/rounds", "/compare")

_READY = "document.querySelectorAll('#matrix tbody td').length"
_SINCE_START = """() => new Promise(done => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"""
_OPEN = """k => new Promise((done, fail) => {
  const rows = document.getElementById('rows');
  const begun = performance.now();
  const watch = new MutationObserver(() => {
    if (!rows.querySelector('.rows > li')) return;
    watch.disconnect();
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun)));
  });
  rows.replaceChildren();
  watch.observe(rows, { childList: true, subtree: true });
  setTimeout(() => fail(new Error('no rows within 20 s')), 20000);
  [...document.querySelectorAll('#matrix tbody td')].filter(cell => cell.textContent.trim())[k].click();
})"""
"""Opens the rows of a cell that has a number."""
_MEASURED = "[...document.querySelectorAll('#matrix tbody td')].filter(cell => cell.textContent.trim()).length"
_WATCH = """() => {
  window.mounted = {};
  for (const place of document.querySelectorAll('[data-part]')) {
    window.mounted[place.dataset.part] = 0;
    new MutationObserver(() => window.mounted[place.dataset.part]++).observe(place, { childList: true });
  }
}"""


class Load(NamedTuple):
    """How much is measured."""

    ledger: Scale
    cells: int
    live_s: float
    settled_s: float


FULL = Load(Scale(200, 50, 1000), cells=100, live_s=1800, settled_s=300)
QUICK = Load(Scale(6, 13, 30), cells=10, live_s=14, settled_s=4)


def measure_page(tell: Callable[[str], None], *, quick: bool) -> list[Figure]:
    """First view, cells, memory, accessibility and the report's file."""
    load = QUICK if quick else FULL
    with _folder(quick=quick) as folder:
        world = DashboardWorld(Path(folder), load.ledger, tell)
        tell("looking at the page")
        return [*_look(world, load), *_file(world)]


def measure_live(tell: Callable[[str], None], *, quick: bool) -> list[Figure]:
    """Live refresh while a round runs."""
    load = QUICK if quick else FULL
    with _folder(quick=quick) as folder:
        return list(_live(DashboardWorld(Path(folder), load.ledger, tell), load, tell))


def _look(world: DashboardWorld, load: Load) -> Iterator[Figure]:
    told = f"{load.ledger.rounds} rounds x {load.ledger.suites} suites x {load.ledger.items:,} items"
    with world.serving() as server, chromium() as running:
        context = running.new_context(viewport={"width": 1400, "height": 900})
        hosts = set[str]()
        context.on("request", lambda request: hosts.add(request.url.split("/")[2].rpartition(":")[0]))
        tab = context.new_page()
        cold = _visit(tab, world)
        yield Figure("first view of the drift page, s", cold, 1.5, note=f"{told}; first request of a new process")
        again = [_visit(tab, world) for _ in range(5)]
        yield Figure("later views, median s", quantile(again, 0.5), 1.5, note=f"n={len(again)}")
        yield Figure(
            "cell to its rows, p95 ms", quantile(_cells(tab, load.cells), 0.95), 300, note=f"n={load.cells}, any cell"
        )
        yield Figure("page process, MB", memory_mb(server), 500)
        yield Figure("torch in the page process", float(loads(server, "libtorch.*|torch")), 0)
        found = [problem for scheme in ("light", "dark") for problem in _violations(running, world, scheme)]
        yield Figure(
            "axe-core serious or critical, light and dark",
            len(found),
            0,
            note=", ".join(sorted(set(found))) or ", ".join(PATHS),
        )
        outside = hosts - {"127.0.0.1"}
        yield Figure("hosts outside loopback asked", len(outside), 0, note=", ".join(sorted(outside)))


def _visit(tab: Any, world: DashboardWorld) -> float:
    """Seconds from navigation until the matrix is painted."""
    begun = time.perf_counter()
    tab.goto(f"{world.address}/drift", wait_until="domcontentloaded")
    assert tab.evaluate(_READY)
    tab.evaluate(_SINCE_START)
    return time.perf_counter() - begun


def _cells(tab: Any, count: int) -> list[float]:
    rng = random.Random(0)
    there = tab.evaluate(_MEASURED)
    return [tab.evaluate(_OPEN, rng.randrange(there)) for _ in range(count)]


def _violations(running: Any, world: DashboardWorld, scheme: str) -> list[str]:
    context = running.new_context(color_scheme=scheme)
    tab = context.new_page()
    found: list[str] = []
    for path in PATHS:
        tab.goto(world.address + path)
        tab.wait_for_load_state("networkidle")
        found += [f"{path} {problem}" for problem in axe(tab)]
    context.close()
    return found


def _file(world: DashboardWorld) -> Iterator[Figure]:
    text = html_report(world.places, str(world.places.journal.rounds()[-1].child))
    yield Figure("report file, MB", len(text.encode()) / 1e6, 5)
    outside = sum(text.count(word) for word in ("http://", "https://", "url(", "@import", "<script"))
    yield Figure("things the report file asks for", outside, 0)


def _live(world: DashboardWorld, load: Load, tell: Callable[[str], None]) -> Iterator[Figure]:
    """A round that runs beside an open page: events all the time, a new measurement now and then."""
    with world.serving() as server, chromium() as running:
        tab = running.new_context(viewport={"width": 1400, "height": 900}).new_page()
        tab.goto(f"{world.address}/drift")
        tab.evaluate(_OPEN, 1)
        chosen = tab.url
        tab.evaluate(_WATCH)
        stop = threading.Event()
        busy = threading.Thread(target=_run_round, args=(world, stop), daemon=True)
        busy.start()
        settled = _until(server, tab, load.settled_s)
        sizes = [
            _until(server, tab, min(60.0, (load.live_s - load.settled_s) / 4), tell=tell) for _ in range(_pieces(load))
        ]
        stop.set()
        busy.join()
        mounted: dict[str, int] = tab.evaluate("window.mounted")
        # What the beat measures is one suite of the newest policy: the matrix and what is drawn of skills may change.
        unchanged = {
            name: count for name, count in mounted.items() if name not in {"matrix", "tax", "pareto", "said", "gate"}
        }
        yield Figure(
            "remounts of unchanged figures",
            sum(unchanged.values()),
            0,
            note=f"{load.live_s / 60:.3g} minutes, {len(unchanged)} figures",
        )
        kept = tab.url == chosen and tab.evaluate("document.querySelectorAll('#rows .rows > li').length") > 0
        yield Figure("open rows kept", float(kept), 1, "at least")
        growth = max(sizes[-3:]) / settled - 1 if settled else None
        yield Figure(
            "memory growth after minute 5, %",
            None if growth is None else 100 * growth,
            5,
            note=f"page process, {settled:.0f} to {max(sizes[-3:]):.0f} MB",
        )


def _pieces(load: Load) -> int:
    return max(3, round((load.live_s - load.settled_s) / 60))


def _until(server: psutil.Process, tab: Any, seconds: float, tell: Callable[[str], None] | None = None) -> float:
    """Let the page live for a while; what its process then holds, in MB."""
    tab.wait_for_timeout(1000 * seconds)
    if tell:
        tell(f"live: {memory_mb(server):.0f} MB")
    return memory_mb(server)


def _run_round(world: DashboardWorld, stop: threading.Event) -> None:
    """What a round in progress leaves: an event a second, every minute a measurement of the newest policy."""
    record = world.places.journal.rounds()[-1]
    for beat in range(1_000_000):
        append_event(world.places.engine, record.digest, Progress("optimise", beat, 10**6, {"loss": 0.5}))
        if beat % 60 == 30:
            rows = [Item(f"skill-late-{beat}", f"{i}", "correct", float(i % 3 > 0), f"{i}", {}, {}) for i in range(100)]
            world.places.ledger.record(str(record.child), CONDITION, rows)
        if stop.wait(1.0):
            return


def _folder(*, quick: bool) -> AbstractContextManager[str]:
    """Where the ledger lies: a folder that stays if the environment names one, else one that goes."""
    given = os.environ.get(WORK)
    kept = Path(given or "") / ("dashboard-quick" if quick else "dashboard")
    return nullcontext(str(kept)) if given else tempfile.TemporaryDirectory()


PARTS = {"gate": measure_gate, "page": measure_page, "live": measure_live}
