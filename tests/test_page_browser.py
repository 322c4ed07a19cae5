"""The page in a real browser: one key per verdict, nothing lost, nothing doubled, usable by everybody."""

import re
import time
from dataclasses import replace

import pytest
from axe_playwright_python.sync_playwright import Axe

from preference_data.accounts import Accounts
from preference_data.leading import Leading
from preference_data.queue import Given
from preference_data.records import Comparison, Completion, Imported, Pairwise, Prompt, Thumb, Verdict
from tests.page_kit import Page, browser, client, compare, served
from tests.test_page import HOSTILE

SERIOUS = {"serious", "critical"}
ANSWER = ".answer .body"


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


STANDS_STILL = (
    "!document.querySelector('.pending') && document.getAnimations().every("
    "one => one.playState !== 'running' || one.effect.getComputedTiming().endTime === Infinity)"
)


class Person:
    """Somebody in front of the page."""

    def __init__(self, chromium, url, **options):
        self.context = chromium.new_context(**options)
        self.tab = self.context.new_page()
        self.said, self.asked = [], []
        self.tab.on("console", lambda message: self.said.append(message.text))
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(url)

    def sees(self, text):
        self.tab.get_by_text(text).first.wait_for()

    def press(self, *keys):
        for key in keys:
            self.tab.keyboard.press(key)

    def answers(self):
        return self.tab.locator(ANSWER).all_text_contents()

    def until(self, question, given=None):
        """Wait until the page answers a question in JavaScript with yes (its own policy forbids it to poll by eval)."""
        end = time.monotonic() + 15
        while not self.tab.evaluate(question, given):
            assert time.monotonic() < end, f"still not: {question}"
            time.sleep(0.01)

    def saved(self):
        """Wait until the server confirmed everything; there is something, so an outbox not yet begun is not empty."""
        self.until("localStorage.getItem('outbox:ann') === '[]'")


def violations(person):
    """What axe-core finds that keeps somebody out, once nothing fades in or out (half faded has no contrast)."""
    person.until(STANDS_STILL)
    found = Axe().run(person.tab).response["violations"]
    return [
        (each["id"], [(node["html"], node["failureSummary"]) for node in each["nodes"]])
        for each in found
        if each["impact"] in SERIOUS
    ]


@pytest.fixture
def page(tmp_path, request):
    return Page(tmp_path, **getattr(request, "param", {}))


@pytest.fixture
def visit(page, chromium):
    """Serves the page and opens it: `visit(comparisons)`."""
    opened = []

    def go(*comparisons, person="ann", **options):
        page.ask(*comparisons)
        serving = served(page.store, person=person)
        visitor = Person(chromium, serving.__enter__(), **options)
        opened.append((visitor, serving))
        return visitor

    yield go
    for visitor, serving in opened:
        visitor.context.close()
        serving.__exit__(None, None, None)


def test_one_key_judges_and_shows_the_next(visit, page):
    ann = visit(compare(1), compare(2))
    ann.sees("question")
    first_shown = ann.answers()
    ann.press("2")
    ann.until("was => document.querySelector('.answer .body').textContent !== was", first_shown[0])
    ann.saved()
    (kept,) = page.judgements()
    assert kept.opinion.strength == 2
    entry = next(e for e in page.store.entries() if e.judgements)
    liked = entry.comparison.completions[0 if kept.opinion.verdict is Verdict.FIRST else 1].text
    assert liked == first_shown[0].strip()


def test_the_next_item_is_painted_from_the_buffer(visit):
    ann = visit(*(compare(i) for i in range(6)))
    ann.sees("question")
    took = ann.tab.evaluate("""() => new Promise((done) => {
      const start = performance.now();
      document.dispatchEvent(new KeyboardEvent('keydown', {key: '4', bubbles: true}));
      requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
    })""")
    assert ann.tab.locator(ANSWER).count() == 2
    assert took < 2_000  # only that it needs no server; `workbench bench page` measures


def test_a_verdict_survives_a_lost_network_and_a_closed_page_and_is_stored_once(visit, page, chromium):
    ann = visit(compare(1), compare(2))
    ann.sees("question")
    ann.context.set_offline(True)
    ann.press("1")
    ann.sees("Not saved yet: 1")
    assert page.judgements() == []
    ann.tab.close()  # the context keeps its storage
    ann.context.set_offline(False)
    ann.tab = ann.context.new_page()
    ann.tab.goto(next(url for url in ann.asked if url.endswith("/judge.html")))
    ann.sees("question")
    ann.saved()
    assert len(page.judgements()) == 1


HURRY = "setTimeout = ((real) => (what, ms) => real(what, Math.min(ms, 20)))(setTimeout)"


def test_a_judgement_the_server_fails_on_holds_up_no_other(visit, page):
    ann, failing = visit(compare(1), compare(2)), []

    def answer(route):
        failing.append(route.request.post_data_json["lease"])
        if failing[-1] == failing[0]:
            route.fulfill(status=500, content_type="application/json", body="{}")
        else:
            route.continue_()

    ann.tab.add_init_script(HURRY)
    ann.tab.reload()
    ann.tab.route("**/api/judge", answer)
    ann.sees("question")
    ann.press("2")
    ann.until("JSON.parse(localStorage.getItem('outbox:ann') ?? '[]').length === 1")
    ann.press("2")
    ann.until("JSON.parse(localStorage.getItem('outbox:ann')).length === 1 && document.querySelector('#item').hidden")
    until(lambda: len(page.judgements()) == 1)


def test_what_the_server_refuses_stays_in_the_browser(visit):
    ann = visit(compare(1))
    refusal = {"status": 409, "content_type": "application/json", "body": '{"message": "not yours"}'}
    ann.tab.route("**/api/judge", lambda route: route.fulfill(**refusal))
    ann.sees("question")
    ann.press("2")
    ann.until("JSON.parse(localStorage.getItem('refused:ann') ?? '[]')[0]?.message === 'not yours'")
    ann.saved()


def test_a_full_storage_loses_nothing_while_the_page_is_open(visit, page):
    ann = visit(compare(1), compare(2))
    ann.sees("question")
    ann.tab.evaluate("() => { Storage.prototype.setItem = () => { throw new Error('full'); }; }")
    ann.press("2")
    until(lambda: len(page.judgements()) == 1)
    ann.press("2")
    until(lambda: len(page.judgements()) == 2)


def test_an_item_on_the_screen_goes_on_under_the_guideline_that_follows(visit, page):
    ann = visit(*(compare(i) for i in range(20)))
    ann.sees("question")
    settings = replace(page.projects.get("p").settings, counts_from=2, old_weight=0)
    page.queue.change("p", guideline="Be kind.", settings=settings, by="lead")
    ann.press("4", "4", "4", "4")  # until the next items are fetched, and the new guideline with them
    ann.sees("Be kind.")
    ann.saved()
    before = len(page.judgements())
    ann.press("4", "4")  # the one on the screen by then, and one that had been prepared
    until(lambda: len(page.judgements()) == before + 2)
    assert [j.guideline for j in page.judgements()[-2:]] == ["p/2", "p/2"]


def until(true):
    end = time.monotonic() + 15
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_undo_shows_the_item_again_and_a_new_verdict_supersedes(visit, page):
    ann = visit(compare(1), compare(2))
    ann.sees("question")
    ann.press("1")
    ann.saved()
    ann.press("u")
    ann.sees("You judged this before")
    ann.press("8")
    ann.saved()
    first, second = page.judgements()
    assert (second.supersedes, second.opinion) == (first.key, Pairwise(Verdict.NEITHER))


def test_a_double_click_judges_one_item(visit, page):
    ann = visit(*(compare(i) for i in range(3)))
    ann.sees("question")
    ann.tab.get_by_role("radio").first.dblclick()
    ann.saved()
    assert len(page.judgements()) == 1


def test_an_item_judged_in_another_tab_is_said_and_not_doubled(visit, page):
    ann = visit(compare(1))
    ann.sees("question")
    (own,) = page.queue.take("p", "ann", count=1).showings
    page.queue.submit(own.lease, "ann", Given(opinion=Pairwise(Verdict.TIE)))
    ann.press("1")
    ann.sees("Not stored: item 1: you judged it already")
    assert [j.opinion.verdict for j in page.judgements()] == [Verdict.TIE]


def test_the_better_answer_is_edited_in_place(visit, page):
    ann = visit(compare(1))
    ann.sees("question")
    ann.press("e")
    ann.tab.locator("#edit").fill("a better one")
    ann.press("Escape", "1")
    ann.saved()
    assert page.judgements()[0].edit == "a better one"


def test_flags_a_reason_and_a_skip_are_kept(visit, page):
    ann = visit(compare(1))
    ann.sees("question")
    ann.press("p", "s")
    ann.tab.locator("#skip-reason").fill("not my language")
    ann.tab.get_by_role("button", name="Skip", exact=True).click()
    ann.saved()
    (kept,) = page.judgements()
    assert (kept.opinion.verdict, kept.flags, kept.rationale) == (Verdict.SKIP, ("pii",), "not my language")


def test_keys_can_be_chosen(visit, page):
    ann = visit(compare(1))
    ann.sees("question")
    ann.press("?")
    ann.tab.get_by_label("Equally good").press("x")
    ann.tab.get_by_role("button", name="Close").first.click()
    ann.press("x")
    ann.saved()
    assert page.judgements()[0].opinion.verdict is Verdict.TIE


def test_arrows_move_through_the_radio_group_and_space_decides(visit, page):
    ann = visit(compare(1))
    ann.sees("question")
    ann.tab.get_by_role("radio").first.focus()
    ann.press("ArrowRight", "ArrowRight", " ")
    ann.saved()
    assert page.judgements()[0].opinion.strength == 1


RATED = {"mode": "rating", "dimensions": ("helpful", "true")}


@pytest.mark.parametrize("page", [RATED], indirect=True)
def test_numbers_rate_one_scale_after_the_other(visit, page):
    ann = visit(compare(1))
    ann.sees("question")
    first = ann.answers()[0].strip()
    ann.press("5", "4", "Enter", "3", "Backspace", "2", "1", "Enter")  # the first Enter is too early
    ann.saved()
    (kept,) = page.judgements()
    (entry,) = page.store.entries()
    by_text = {c.text: scores for c, scores in zip(entry.comparison.completions, kept.opinion.scores, strict=True)}
    other = next(text for text in by_text if text != first)
    assert by_text == {first: {"helpful": 5, "true": 4}, other: {"helpful": 2, "true": 1}}


@pytest.mark.parametrize("page", [{"mode": "ranking"}], indirect=True)
def test_numbers_rank_from_best_to_worst_with_ties(visit, page):
    three = Comparison(Prompt.of("which?"), tuple(Completion(t, Imported("s", t)) for t in "abc"), "s")
    ann = visit(three)
    ann.sees("which?")
    shown = [text.strip() for text in ann.answers()]
    ann.press("3", "1", "Backspace", "1", "=", "2")
    ann.sees("Answer 2: rank 2")
    ann.press("Enter")
    ann.saved()
    (kept,) = page.judgements()
    assert [sorted("abc"[k] for k in tied) for tied in kept.opinion.order] == [[shown[2]], sorted(shown[:2])]


@pytest.mark.parametrize("page", [{"mode": "thumb"}], indirect=True)
def test_a_single_answer_gets_a_thumb(visit, page):
    ann = visit(Comparison(Prompt.of("question?"), (Completion("only", Imported("s", "p")),), "s"))
    ann.sees("question")
    ann.press("2")
    ann.saved()
    assert page.judgements()[0].opinion == Thumb(False)


def test_a_reason_that_was_begun_is_there_after_a_reload(visit):
    ann = visit(compare(1))
    ann.sees("question")
    ann.tab.locator("#rationale").fill("because")
    ann.tab.reload()
    ann.sees("question")
    assert ann.tab.locator("#rationale").input_value() == "because"


def test_the_page_speaks_the_language_of_the_browser(visit):
    ann = visit(compare(1), locale="ja-JP")
    ann.sees("同程度")
    assert ann.tab.evaluate("document.documentElement.lang") == "ja"
    assert ann.tab.evaluate("""async () => {
      const words = (await import('/words.js')).languages();
      const holes = (one) => Object.entries(one).map(([name, text]) => [name, ...(text.match(/{\\w+}/g) ?? []).sort()].join()).sort();
      return Object.values(words).every((one) => holes(one).join() === holes(words.en).join());
    }""")


def test_an_empty_queue_says_so_and_looks_again(visit, page):
    ann = visit()
    ann.sees("Nothing to judge now")
    page.ask(compare(1))
    ann.tab.get_by_role("button", name="Look again").click()
    ann.sees("question 1?")
    assert len(ann.answers()) == 2


def test_hostile_texts_run_nothing_and_ask_nobody(visit, page):
    hostile = [compare(i, text, f"{text} b", prompt=f"{text} {i}") for i, text in enumerate(HOSTILE)]
    ann = visit(*hostile)
    ann.tab.evaluate("() => { window.alert = () => { window.harmed = true } }")
    ann.tab.locator(".answer").first.wait_for()
    for text in HOSTILE:
        ann.until("!document.querySelector('#item').hidden")
        ann.tab.evaluate("at => document.querySelector('#rationale').value = at", text)
        before = ann.tab.locator("#prompt").inner_html()
        ann.press("4")
        ann.until("was => document.querySelector('#item').hidden"
                  " || document.querySelector('#prompt').innerHTML !== was", before)  # fmt: skip
    ann.saved()
    assert len(page.judgements()) == len(HOSTILE)
    ann.press("h")
    ann.tab.locator("#past li").first.wait_for()
    assert not ann.tab.evaluate("window.harmed ?? false")
    assert {re.match(r"https?://[^/]+", url)[0] for url in ann.asked} == {ann.tab.evaluate("location.origin")}


@pytest.mark.parametrize("page", [RATED, {"mode": "ranking"}], indirect=True, ids=["rating", "ranking"])
def test_the_other_modes_are_open_to_a_screen_reader(visit, page):
    for scheme in ("light", "dark"):
        ann = visit(compare(1), color_scheme=scheme)
        ann.sees("question")
        ann.press("1")
        assert violations(ann) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("opened", ["", "d", "h", "?", "e"])
def test_nothing_stands_in_the_way_of_a_screen_reader(visit, scheme, opened):
    code = "Look: `x`\n\n```python\ndef f(x): # note\n    return 'text', 1\n```\n\n$x^2$"
    ann = visit(compare(1, code, f"{code} and [more](https://example.org)"), compare(2), color_scheme=scheme)
    ann.sees("question")
    if opened == "h":
        ann.press("1")
        ann.saved()
    if opened:
        ann.press(opened)
        time.sleep(0.2)
    assert violations(ann) == []
    assert ann.said == []


def test_a_narrow_screen_needs_no_sideways_scrolling(visit):
    ann = visit(compare(1, "word " * 300, "x" * 2_000), viewport={"width": 320, "height": 640})
    ann.sees("question")
    assert ann.tab.evaluate("document.documentElement.scrollWidth") == 320


def test_an_answer_of_100_000_characters_is_shown_and_judged(visit, page):
    ann = visit(compare(1, "long " * 20_000, "short"))
    ann.sees("question")
    assert max(map(len, ann.answers())) == 100_000
    ann.press("1")
    ann.saved()
    assert len(page.judgements()) == 1


def test_right_to_left_text_keeps_its_direction(visit):
    ann = visit(compare(1, "مرحبا بالعالم", "שלום עולם", prompt="اكتب تحية"))
    ann.tab.locator(ANSWER).first.wait_for()
    directions = ann.tab.locator(ANSWER).evaluate_all("all => all.map(one => getComputedStyle(one).direction)")
    assert directions == ["rtl", "rtl"]


def test_an_item_sent_back_is_shown_with_its_reason_and_corrected(visit, page):
    page.ask(compare(1))
    (shown,) = page.queue.take("p", "ann", count=1).showings
    page.queue.submit(shown.lease, "ann", Given(opinion=Pairwise(Verdict.TIE)))
    Leading(page.store.engine).send_back("p", 1, "ann", reason="look at the end", by="lead")
    ann = visit(compare(2))
    ann.sees("Sent back to you: look at the end")
    ann.press("8")
    ann.saved()
    assert [j.opinion.verdict for j in page.judgements()] == [Verdict.TIE, Verdict.NEITHER]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1000])
def test_the_leads_page_is_open_to_a_screen_reader_when_there_is_nothing_yet(visit, scheme, width):
    ann = visit(color_scheme=scheme, viewport={"width": width, "height": 700})
    ann.tab.goto(ann.tab.url.replace("judge.html", "lead/"))
    ann.sees("0 of 0 items done")
    assert violations(ann) == []
    assert ann.tab.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["login.html", "arena.html"])
def test_log_in_and_arena_are_open_to_a_screen_reader(visit, scheme, path):
    ann = visit(color_scheme=scheme, viewport={"width": 320, "height": 700})
    ann.tab.goto(ann.tab.url.replace("judge.html", path))
    assert ann.tab.get_by_role("button").count() == 1
    assert violations(ann) == []
    assert ann.tab.evaluate("document.documentElement.scrollWidth") == 320


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_leads_see_progress_disputes_and_the_guideline(visit, page, scheme):
    page.ask(*(compare(i) for i in range(3)))
    for person, verdict in (("bob", Verdict.FIRST), ("cyd", Verdict.SECOND)):
        for shown in page.queue.take("p", person, count=3).showings:
            page.queue.submit(shown.lease, person, Given(opinion=Pairwise(verdict)))
    ann = visit(color_scheme=scheme)
    ann.tab.get_by_role("link", name="Leads' page").click()
    ann.sees("3 judgements by 1 people")  # the items need one judgement each, so nothing is left for the second person
    assert violations(ann) == []
    for tab in ("Disputes", "Guideline", "People", "Files and versions"):
        ann.tab.get_by_role("tab", name=tab).click()
        time.sleep(0.3)
        assert violations(ann) == [], tab
    assert {re.match(r"https?://[^/]+", url)[0] for url in ann.asked} == {ann.tab.evaluate("location.origin")}


def test_the_leads_page_speaks_japanese_where_the_browser_does(visit):
    ann = visit(compare(1), locale="ja-JP")
    ann.tab.get_by_role("link", name="責任者のページ").click()
    ann.tab.get_by_role("tab", name="ガイドライン").click()
    ann.tab.get_by_label("そのまま使う").wait_for()
    ann.tab.get_by_role("button", name="新しい版として保存").wait_for()
    ann.tab.get_by_role("heading", name="責任者のページ").wait_for()
    assert violations(ann) == []


def test_who_logs_in_can_ask_for_no_more_of_a_topic(page, chromium):
    page.ask(*(compare(k, topic="war" if k % 2 else "cooking") for k in range(12)))
    accounts = Accounts(page.store.engine)
    token = {name: accounts.create(name, None, by="root") and accounts.begin(name) for name in ("ann", "bob")}
    with served(page.store) as url:
        context = chromium.new_context()
        context.add_cookies([{"name": "session", "value": token["ann"], "url": url}])
        tab = context.new_page()
        tab.goto(url)
        seen = []
        for _ in range(12):
            tab.locator("#prompt:not(:empty)").wait_for()
            number = int(re.search(r"question (\d+)", tab.locator("#prompt").inner_text())[1])
            seen.append(number)
            tab.keyboard.press("s")
            if number % 2:
                tab.get_by_label("Show me nothing more of the topic 'war'").check()
                tab.get_by_role("button", name="Skip", exact=True).click()
                tab.get_by_text("You are shown nothing more of 'war'").wait_for()
                break
            tab.get_by_role("button", name="Skip", exact=True).click()
            tab.wait_for_function(
                "was => !document.querySelector('#prompt').innerText.includes(was)", arg=f"question {number}?"
            )
        assert seen[-1] % 2, "half of the twelve are about war"
        while not tab.locator("#empty").is_visible():
            before = tab.locator("#prompt").inner_text()
            assert int(re.search(r"question (\d+)", before)[1]) % 2 == 0
            tab.keyboard.press("4")
            tab.wait_for_function(
                "was => document.querySelector('#item').hidden || document.querySelector('#prompt').innerText !== was",
                arg=before,
            )
        context.close()
        with client(url) as http:
            http.cookies.set("session", token["bob"])
            shown = http.post("/api/take", json={"project": "p", "count": 12}).json()["showings"]
    about_war = [one for one in shown if one["topic"] == "war"]
    assert len(about_war) == 6, "what she held of it is free for others, and the one she skipped"
    assert accounts.all()[0].avoid == {"topic": ("war",)}


def test_without_accounts_no_topic_is_offered(visit):
    ann = visit(compare(1, topic="war"))
    ann.sees("question")
    ann.press("s")
    assert not ann.tab.locator("#unwanted").is_visible()
