"""One real browser in front of the page: how soon things are painted, where requests go, what stands in the way."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, repeat
from typing import Any

from workbench.bench.page_load import FIRST_AHEAD, MORE_AHEAD, MOST_AHEAD
from workbench.errors import WorkbenchError

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
              "--disable-sync", "--no-first-run", "--disable-quic"]  # fmt: skip
_WATCH = """() => {
  window.painted = [];
  let pressed = 0, old = '';
  addEventListener('keydown', (event) => {
    if (!pressed) { pressed = event.timeStamp; old = document.querySelector('#prompt').textContent; }
  }, true);
  new MutationObserver(() => {
    const prompt = document.querySelector('#prompt');
    if (!pressed || document.querySelector('#item').hidden || prompt.textContent === old) return;
    const since = pressed;
    pressed = 0;
    requestAnimationFrame(() => setTimeout(() => window.painted.push(performance.now() - since)));
  }).observe(document.querySelector('#main'), { subtree: true, childList: true, attributes: true });
}"""


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium.

    Raises:
        WorkbenchError: there is none, or nothing to drive it with.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise WorkbenchError("no Chromium on this machine; install it (Debian: apt-get install chromium)")
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - of the development tools
    except ImportError as error:
        raise WorkbenchError("playwright is not installed; it comes with the development tools: make setup") from error
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=_ARGUMENTS)
        try:
            yield running
        finally:
            running.close()


class Visitor:
    """Somebody logged in, in front of the page."""

    def __init__(self, running: Any, address: str, token: str, **options: Any) -> None:
        """Open the page; `usable_s` is when the first item could be judged."""
        self.context = running.new_context(**options)
        self.context.add_cookies([{"name": "session", "value": token, "url": address}])
        self.hosts = set[str]()
        self.context.on("request", lambda request: self.hosts.add(request.url.split("/")[2].rpartition(":")[0]))
        self.tab = self.context.new_page()
        start = time.perf_counter()
        self.tab.goto(address)
        self.tab.locator(".answer").first.wait_for()
        self.usable_s = time.perf_counter() - start

    def presses(self, count: int, *, think_s: float, cold: bool = False) -> list[float]:
        """Milliseconds from each key press to the next pair painted.

        Args:
            count: how many.
            think_s: between a painted pair and the next press.
            cold: the page holds nothing ahead, so that each pair has to be fetched.
        """
        if cold:
            self.tab.route("**/api/take", _one_at_a_time())
            self.tab.reload()
            self.tab.locator(".answer").first.wait_for()
        self.tab.evaluate(_WATCH)
        for number in range(1, count + 1):
            time.sleep(think_s)
            self.tab.keyboard.press("2")
            end = time.monotonic() + 30
            while self.tab.evaluate("window.painted.length") < number and time.monotonic() < end:
                time.sleep(0.005)
        return self.tab.evaluate("window.painted")

    def violations(self) -> list[str]:
        """What axe-core finds to be serious or critical."""
        return axe(self.tab)


def axe(tab: Any) -> list[str]:
    """What axe-core finds to be serious or critical on a page."""
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415 - of the development tools

    found = Axe().run(tab).response["violations"]
    return [each["id"] for each in found if each["impact"] in {"serious", "critical"}]


def _one_at_a_time() -> Callable[[Any], None]:
    """Lets the page prepare no item but the one it shows, whose place its judgement holds until it arrives."""
    prepared = chain(range(FIRST_AHEAD, MOST_AHEAD, MORE_AHEAD), repeat(MOST_AHEAD))

    def change(route: Any) -> None:
        body = route.request.post_data_json
        route.continue_(post_data={**body, "count": body["count"] - next(prepared) + 1})

    return change
