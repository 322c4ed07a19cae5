"""The drift, rounds and compare pages in a real browser: cells open, links restore, nothing flickers, everybody can use it."""

import re

import pytest

from tests import drift_kit
from tests.drift_kit import LATER, PLAIN, POLITE, World, capability, items, retention
from tests.page_kit import browser, drift_served
from tests.test_figures import lineage, sure
from tests.test_page_browser import Person, violations
from workbench.reports.document import CSS, templates
from workbench.reports.figures import nowhere
from workbench.reports.matrix import grid
from workbench.rounds.plan import measuring_condition
from workbench.rounds.progress import append_event
from workbench.tasks import Progress

world = drift_kit.world
QUICK = "setTimeout = ((real) => (what, ms) => real(what, Math.min(ms, 50)))(setTimeout)"
"""The page looks for news every twentieth of a second instead of every few seconds."""


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture
def visit(world, chromium):
    """Opens a page of the workspace: `visit("/drift")`."""
    opened = []

    def go(path, **options):
        serving = drift_served(world.ws)
        person = Person(chromium, serving.__enter__() + path, **options)
        opened.append((person, serving))
        return person

    yield go
    for person, serving in opened:
        person.context.close()
        serving.__exit__(None, None, None)


def cell(person, row, column):
    return person.tab.locator("#matrix tbody tr").nth(row).locator("td").nth(column)


def test_a_cell_opens_its_rows_and_the_address_restores_them(visit):
    lea = visit("/drift")
    cell(lea, 0, 2).click()
    lea.sees("worse 2")
    assert lea.tab.locator(".rows > li").first.get_attribute("class") == "lost"
    address = lea.tab.url
    lea.tab.locator("[data-rows]", has_text="worse").click()
    lea.until("document.querySelectorAll('.rows > li').length === 2")
    lea.tab.go_back()
    lea.until("document.querySelectorAll('.rows > li').length === 20")
    assert lea.tab.url == address
    lea.tab.reload()  # as whoever follows the link; going to the address one is at loads nothing
    lea.sees("worse 2")
    lea.until("document.querySelectorAll('#matrix td.open').length === 1")
    assert lea.tab.locator("#matrix td.open").count() == 1
    lea.press("Escape")
    lea.until("!document.querySelector('#rows').hasChildNodes()")
    assert "cell=" not in lea.tab.url


def test_rows_that_come_after_they_were_closed_stay_away(visit):
    lea = visit("/drift")
    lea.tab.route("**/drift/rows?*", lambda route: (lea.tab.wait_for_timeout(300), route.continue_()))
    cell(lea, 0, 2).click()
    lea.tab.go_back()
    lea.tab.wait_for_timeout(900)
    assert not lea.tab.evaluate("document.querySelector('#rows').hasChildNodes()")


def test_arrows_move_through_the_matrix_and_enter_opens(visit):
    lea = visit("/drift")
    lea.tab.locator("#matrix td[tabindex='0']").focus()
    lea.press("ArrowLeft", "ArrowDown")
    told = lea.tab.evaluate("document.activeElement.title")
    assert told.startswith("round-1 on polite")
    assert lea.tab.locator("#readout").text_content() == told
    assert lea.tab.locator("#matrix td[tabindex='0']").count() == 1  # one stop for Tab
    lea.press("Enter")
    lea.sees("accuracy of round-1 on polite")
    lea.press("j")
    assert lea.tab.evaluate("document.activeElement.matches('.rows > li:first-child')")


def test_a_click_above_a_column_pins_the_baseline(visit):
    lea = visit("/drift")
    lea.tab.locator("#matrix thead button").first.click()
    lea.sees("against the pinned baseline")
    assert "against=" in lea.tab.url
    cell(lea, 0, 2).click()
    lea.sees("Compared with tiny")


def test_choosing_a_policy_shows_its_lineage(visit, world):
    lea = visit("/drift")
    lea.tab.select_option("select[name=policy]", world.first.digest[:16])
    lea.tab.locator("h1", has_text="round-1").wait_for()
    assert lea.tab.locator("#matrix thead th").count() == 3  # a name, the base, one round


def test_news_is_drawn_where_it_changed_and_nowhere_else(visit, world):
    lea = visit("/drift")
    lea.tab.add_init_script(QUICK)
    lea.tab.reload()
    cell(lea, 0, 2).click()
    lea.sees("worse 2")
    lea.tab.evaluate("""() => {
      window.mounted = [];
      for (const place of document.querySelectorAll('[data-part]'))
        new MutationObserver(() => window.mounted.push(place.dataset.part)).observe(place, { childList: true });
      getSelection().selectAllChildren(document.querySelector('.rows > li'));
    }""")
    world.record(world.second, retention(LATER, 12))
    lea.sees("later")
    lea.tab.wait_for_timeout(500)
    assert set(lea.tab.evaluate("window.mounted")) == {"matrix"}
    assert lea.tab.evaluate("getSelection().toString().length") > 0
    assert lea.tab.locator(".rows > li").count() == 20
    assert lea.tab.locator("#matrix td.open").count() == 1
    assert lea.tab.locator("#matrix td[tabindex='0']").count() == 1


def test_parts_fetched_later_are_drawn_anew_where_they_differ(visit, world):
    third = world.child(world.plan(world.second, LATER), 3.0)
    world.record(third, retention(LATER, 12))
    lea = visit(f"/drift?policy={third.digest}")
    lea.tab.add_init_script(QUICK)
    lea.tab.reload()
    lea.until("document.querySelector('#averages table') !== null")
    lea.tab.evaluate("document.querySelector('#averages table').dataset.kept = 'yes'")
    with lea.tab.expect_response("**/drift/averages*"):
        world.record(third, items("skill", "correct", [1.0] * 9))
    lea.tab.wait_for_timeout(200)
    assert lea.tab.evaluate("document.querySelector('#averages table').dataset.kept") == "yes"
    world.record(third, retention(PLAIN, 12), retention(POLITE, 12))  # what the averages lacked
    lea.until("!document.querySelector('#averages table').dataset.kept")


def test_a_mean_opens_its_numbers_and_they_their_rows(visit, world):
    lea = visit("/drift?against=base")
    lea.tab.locator(f"a[href*='{world.second.digest[:16]}+figure+pareto']").dispatch_event("click")
    lea.sees("The numbers behind this point")
    lea.tab.locator("#rows a", has_text="0.700").click()
    lea.sees("Compared with tiny, row by row")


def test_a_page_left_open_says_that_there_is_a_newer_policy_and_stays(visit, world):
    lea = visit("/drift?against=base")
    lea.tab.add_init_script(QUICK)
    lea.tab.reload()
    plan = world.plan(world.second, LATER, gate={"max_tax": 0.5})
    third = world.child(plan, 3.0)
    world.record(third, retention(PLAIN, 12), retention(POLITE, 12), retention(LATER, 12), capability(18, 820))
    world.finish(plan, third)
    lea.sees("a newer policy is there: show it")
    assert "round-2" in lea.tab.locator("h1").text_content()
    lea.tab.get_by_text("a newer policy is there: show it").click()
    lea.tab.locator("h1", has_text="round-3").wait_for()
    assert lea.tab.locator("select[name='against']").input_value()  # the baseline stays


def test_a_page_that_is_hidden_and_shown_asks_once_at_a_time(visit):
    lea = visit("/drift")
    lea.tab.add_init_script(
        "window.asked = 0; fetch = ((real) => (...all) => { asked += `${all[0]}`.includes('state'); return real(...all); })(fetch)"
    )
    lea.tab.reload()
    lea.sees("Averages over all rounds")
    for _ in range(10):
        lea.tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    lea.tab.wait_for_timeout(4500)  # one timer: ten answers, and one more after three seconds
    assert lea.tab.evaluate("asked") <= 12


def test_a_round_that_ends_shows_what_can_be_done_then(visit, world):
    world.ws.journal.begin("e" * 64, 3, world.ws.journal.rounds()[-1].plan)
    lea = visit(f"/rounds/{'e' * 64}")
    lea.tab.add_init_script(QUICK)
    lea.tab.reload()
    world.ws.journal.finish("e" * 64, "failed", message="a loss is not finite")
    lea.tab.get_by_role("button", name="Try again").wait_for()


def test_a_round_is_drawn_anew_where_it_changed_and_nowhere_else(visit, world):
    digest = world.ws.journal.rounds()[-1].digest
    for step, loss in enumerate((0.7, 0.6), start=1):
        append_event(world.ws.engine, digest, Progress("optimise", step, 3, {"loss": loss, "kl_parent": 0.1}))
    lea = visit(f"/rounds/{digest}")
    lea.tab.add_init_script(QUICK)
    lea.tab.reload()
    lea.tab.evaluate("""() => {
      window.mounted = [];
      for (const place of document.querySelectorAll('[data-part]'))
        new MutationObserver(() => window.mounted.push(place.dataset.part)).observe(place, { childList: true });
    }""")
    for _ in range(3):
        with lea.tab.expect_response("**/state"):
            pass
    assert lea.tab.evaluate("window.mounted") == []
    append_event(world.ws.engine, digest, Progress("optimise", 3, 3, {"loss": 0.5}))
    lea.until("window.mounted.includes('loss')")
    assert set(lea.tab.evaluate("window.mounted")) <= {"loss", "bars", "log"}


def test_a_fall_is_marked_in_a_matrix_too_wide_for_numbers(chromium):
    numbers = {("p2", "accuracy", "retention/v1"): sure(0.6), ("p2", "from parent", "retention/v1"): sure(-0.3)}
    drawn = templates().get_template("parts.html").module.matrix(grid(lineage(40, numbers), nowhere))
    tab = chromium.new_page()
    tab.set_content(f"<style>{CSS.read_text(encoding='utf-8')}</style>{drawn}")
    mark = tab.evaluate("""() => {
      const style = getComputedStyle(document.querySelector('.grid.narrow td.fell'), '::after');
      return [style.content, parseFloat(style.fontSize) > 6];
    }""")
    assert mark == ['"▾"', True]
    assert tab.evaluate("[...document.querySelectorAll('td.fell')].length") == 1
    tab.close()


def test_a_server_that_is_gone_is_said(visit):
    lea = visit("/drift")
    lea.tab.add_init_script(QUICK)
    lea.tab.reload()
    lea.sees("Averages over all rounds")
    lea.context.set_offline(True)
    lea.sees("the server does not answer")
    lea.context.set_offline(False)
    lea.until("document.querySelector('#live').textContent === ''")
    assert lea.tab.locator("#matrix td").count() > 0


PATHS = ("/drift", "/rounds", "/compare", "round", "rows")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PATHS)
def test_nothing_stands_in_the_way_of_a_screen_reader(visit, world, path, scheme):
    addresses = {
        "round": f"/rounds/{world.ws.journal.rounds()[-1].digest}",
        "rows": f"/drift?against=base&cell={world.second.digest[:16]}+accuracy+retention/{PLAIN}",
    }
    lea = visit(addresses.get(path, path), color_scheme=scheme)
    lea.tab.wait_for_load_state("networkidle")
    assert violations(lea) == []
    assert lea.said == []
    assert {re.match(r"https?://[^/]+", url)[0] for url in lea.asked} == {lea.tab.evaluate("location.origin")}


@pytest.mark.parametrize("path", ["/drift", "/rounds", "/compare"])
def test_a_narrow_screen_needs_no_sideways_scrolling(visit, path):
    lea = visit(path, viewport={"width": 320, "height": 640})
    lea.tab.wait_for_load_state("networkidle")
    assert lea.tab.evaluate("document.documentElement.scrollWidth") == 320


def test_hostile_answers_run_nothing(tmp_path, chromium):
    world = World(tmp_path)
    hostile = "<img src=x onerror='window.harmed=1'><script>window.harmed=1</script>"
    world.ws.versions.add(hostile, "d" * 64)
    plan = world.plan(world.base, "d" * 64)
    child = world.child(plan, 1.0)
    world.condition = measuring_condition(plan)
    for policy, count in ((world.base, 10), (child, 16)):
        world.record(policy, retention("d" * 64, count), capability(20, 800))
    for policy, answer in ((world.base, "meek"), (child, hostile)):
        from tests.drift_kit import samples

        world.record(policy, samples("d" * 64, tokens=[5] * 6, texts=[answer] * 6))
    world.finish(plan, child)
    with drift_served(world.ws) as url:
        for path in ("/compare", f"/drift?cell={child.digest[:16]}+length+samples/{'d' * 64}"):
            lea = Person(chromium, url + path)
            lea.tab.wait_for_load_state("networkidle")
            lea.tab.locator("pre", has_text="onerror").first.wait_for()
            assert not lea.tab.evaluate("window.harmed ?? false")
            lea.context.close()
