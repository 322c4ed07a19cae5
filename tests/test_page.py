"""The page's server: blind, guarded, and safe whatever a text says."""

import json
import re
from html.parser import HTMLParser

import pytest

from preference_data.errors import StoreError
from preference_data.queue import Queue
from tests.page_kit import Page, client, compare, served
from ui.rendering import LONGEST, rendered

SECRETS = re.compile(r"secret-|policy|imported|source", re.IGNORECASE)


@pytest.fixture
def page(tmp_path):
    return Page(tmp_path)


@pytest.fixture
def web(page):
    page.ask(*(compare(i) for i in range(4)))
    with served(page.store) as url, client(url) as http:
        yield http


def take(http, count=1):
    return http.post("/api/take", json={"project": "p", "count": count}).json()["showings"]


def judge(http, lease, verdict="first", strength=2, **more):
    opinion = {"kind": "pairwise", "verdict": verdict, "strength": strength}
    return http.post("/api/judge", json={"lease": lease, "opinion": opinion, **more})


def test_a_judgement_is_stored_about_the_answers_as_they_stood(web, page):
    shown = {each["lease"]: each["answers"] for each in take(web, 4)}
    for lease in shown:
        assert judge(web, lease, rationale="clear", seconds=1.5).json() == {
            "stored": True, "late": False, "right": None, "why": ""}  # fmt: skip
    liked = [answers[0]["text"] for answers in shown.values()]
    kept = {e.comparison.key: e for e in page.store.entries()}
    preferred = [
        e.comparison.completions[0 if j.opinion.verdict == "first" else 1].text
        for e in kept.values()
        for j in e.judgements
    ]
    assert sorted(liked) == sorted(preferred)
    assert {j.extra["seconds"] for j in page.judgements()} == {1.5}
    assert {j.rationale for j in page.judgements()} == {"clear"}


def test_no_answer_of_the_server_says_who_wrote_what(web):
    lease = take(web)[0]["lease"]
    answers = [
        web.get("/judge.html"), web.get("/api/projects"), web.post("/api/take", json={"project": "p", "count": 4}),
        judge(web, lease), web.get("/api/own", params={"project": "p"}), judge(web, lease, verdict="tie", strength=None),
        judge(web, 10**6), web.post("/api/take", json={"project": "nope"}),
    ]  # fmt: skip
    for answer in answers:
        text = answer.text + json.dumps(dict(answer.headers))
        assert not SECRETS.search(text.replace("content-security-policy", "").replace("opener-policy", "").replace(
            "resource-policy", "").replace("referrer-policy", "")), answer.url  # fmt: skip


def test_the_same_again_is_known_and_another_verdict_is_refused(web, page):
    lease = take(web)[0]["lease"]
    assert judge(web, lease).json() == judge(web, lease).json()
    refused = judge(web, lease, verdict="second")
    assert (refused.status_code, "correct" in refused.json()["message"]) == (409, True)
    assert judge(web, lease, verdict="second", again=True).status_code == 200
    assert [bool(j.supersedes) for j in page.judgements()] == [False, True]


def test_a_foreign_item_is_refused(web, page):
    with served(page.store, person="bob") as url, client(url) as other:
        lease = take(other)[0]["lease"]
    refused = judge(web, lease)
    assert (refused.status_code, page.judgements()) == (409, [])
    assert "not shown to 'ann'" in refused.json()["message"]


TIE = {"kind": "pairwise", "verdict": "tie"}


@pytest.mark.parametrize(
    "body",
    [
        {"opinion": {"kind": "pairwise", "verdict": "best"}},
        {"opinion": {"kind": "pairwise", "verdict": "first", "strength": 4}},
        {"opinion": {"kind": "vote"}},
        {"opinion": TIE, "flags": ["gold"]},
        {"opinion": TIE, "annotator": "bob"},
        {"opinion": TIE, "seconds": -1},
        {"opinion": TIE, "rationale": "x" * 20_001},
    ],
)
def test_what_the_page_never_sends_is_refused(web, body, page):
    assert web.post("/api/judge", json={"lease": take(web)[0]["lease"]} | body).status_code == 422
    assert page.judgements() == []


def test_half_a_character_is_refused_in_words(web):
    (shown,) = take(web)
    body = f'{{"lease": {shown["lease"]}, "opinion": {{"kind": "pairwise", "verdict": "tie"}}, "rationale": "\\ud83d"}}'
    answer = web.post("/api/judge", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, "body" in answer.json()["message"]) == (422, True)


@pytest.mark.parametrize(
    "opinion",
    [
        {"kind": "thumb", "up": True},
        {"kind": "pairwise", "verdict": "tie", "strength": 2},
        {"kind": "rating", "scores": [{"help": 1}]},
        {"kind": "ranking", "order": [[0], [0]]},
    ],
)
def test_an_opinion_of_another_kind_is_refused_with_the_reason(web, opinion, page):
    refused = web.post("/api/judge", json={"lease": take(web)[0]["lease"], "opinion": opinion})
    assert (refused.status_code, "expected" in refused.json()["message"]) == (409, True)
    assert page.judgements() == []


def test_another_host_or_site_gets_nothing(web):
    rebound = web.get("/api/projects", headers={"host": "evil.example"})
    assert (rebound.status_code, "evil.example" in rebound.text) == (421, True)
    for origin in ("https://evil.example", "null", ""):
        assert web.post("/api/take", json={"project": "p"}, headers={"origin": origin}).status_code == 403


def test_a_body_that_is_too_large_or_endless_is_refused(web):
    assert web.post("/api/judge", content=b"x" * 2_000_001).status_code == 413
    assert web.post("/api/judge", content=iter([b"{}"])).status_code == 413


def test_every_answer_forbids_foreign_scripts(web):
    for path in ("/judge.html", "/judge.js", "/api/projects", "/nothing-here"):
        headers = web.get(path).headers
        assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff"


def test_a_locked_database_is_said_and_the_same_judgement_can_be_sent_again(web, page, monkeypatch):
    lease = take(web)[0]["lease"]

    def refuse(*_, **__):
        raise StoreError("the database is locked")

    with monkeypatch.context() as broken:
        broken.setattr(Queue, "submit", refuse)
        assert (judge(web, lease).status_code, page.judgements()) == (503, [])
    assert judge(web, lease).status_code == 200


# ---------------------------------------------------------------------------------------------- rendering

WORDS = ("alert(1)", "fetch('//evil.example')")
TEMPLATES = (
    "<script>{}</script>", "<img src=x onerror={}>", "<svg onload={}>", "<svg><script>{}</script></svg>", "<body onload={}>",
    "<iframe src='javascript:{}'></iframe>", "<a href='javascript:{}'>x</a>", "[x](javascript:{})", "[x](JaVaScRiPt:{})",
    "[x](data:text/html,<script>{}</script>)", "[x](vbscript:{})", "![x](javascript:{})", "![x](https://evil.example/?{})",
    "<javascript:{}>", "[x]: javascript:{}\n\n[x]", "$\\href{{javascript:{}}}{{x}}$", "$\\text{{<script>{}</script>}}$",
    "$$\\class{{x}}{{<img src=x onerror={}>}}$$", "```html\n<script>{}</script>\n```", "```<img onerror={}>\nx\n```",
    "`<script>{}</script>`", "<math><mtext><script>{}</script></mtext></math>", "<style>@import '//evil.example/{}';</style>",
    "<link rel=stylesheet href='//evil.example/{}'>", "<meta http-equiv=refresh content='0;url=//evil.example/{}'>",
    "<base href='//evil.example/{}'>", "<form action='//evil.example/{}'><button>x</button></form>",
    "<video src=x onerror={}>", "<details open ontoggle={}>", "<input autofocus onfocus={}>", "<marquee onstart={}>",
    "<object data='javascript:{}'></object>", "<embed src='javascript:{}'>", "<template><script>{}</script></template>",
    "<noscript><p title='</noscript><script>{}</script>'>", "<!--><script>{}</script>-->", "<![CDATA[<script>{}</script>]]>",
    "\"><script>{}</script>", "'><img src=x onerror={}>", "</textarea><script>{}</script>", "</title><script>{}</script>",
    "&lt;script&gt;{}&lt;/script&gt;", "&#60;script&#62;{}&#60;/script&#62;", "\\<script>{}</script>",
    "| a |\n|---|\n| <script>{}</script> |", "- <img src=x onerror={}>", "# <svg onload={}>", "> <script>{}</script>",
    "[<img src=x onerror={}>](https://example.org)", "[x](https://example.org \"onmouseover={}\")",
    "[x](https://example.org' onclick='{})", "<a\u200bhref='javascript:{}'>x</a>", "<\u0000script>{}</script>",
    "\u202e<script>{}</script>\u202c", "<scr\u200dipt>{}</scr\u200dipt>", "<https://evil.example/\"onclick={}>",
)  # fmt: skip
HOSTILE = [template.format(word) for template in TEMPLATES for word in WORDS]
_TAGS = frozenset(
    [
        "p",
        "a",
        "code",
        "pre",
        "em",
        "strong",
        "h1",
        "h2",
        "h3",
        "ul",
        "ol",
        "li",
        "blockquote",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "hr",
        "br",
        "s",
        "span",
        "div",
        "math",
        "mrow",
        "mi",
        "mn",
        "mo",
        "ms",
        "mtext",
        "mspace",
        "msub",
        "msup",
        "msubsup",
        "munder",
        "mover",
        "munderover",
        "mfrac",
        "msqrt",
        "mroot",
        "mtable",
        "mtr",
        "mtd",
        "mstyle",
        "mpadded",
    ]
)
_ATTRIBUTES = frozenset(
    ["href", "rel", "target", "title", "class", "style", "start", "display", "mathvariant", "stretchy"]
)


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_there_are_enough_hostile_texts():
    assert len(set(HOSTILE)) >= 100


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_becomes_harmless_markup(text):
    reader = _Reader()
    reader.feed(rendered(text))
    for tag, attributes in reader.found:
        assert tag in _TAGS
        assert attributes.keys() <= _ATTRIBUTES
        assert re.match(r"(https?://|mailto:)", attributes.get("href", "https://"))
        assert "url(" not in attributes.get("style", "")


def test_markdown_code_and_formulas_are_rendered():
    assert rendered("**a** and `b`") == "<p><strong>a</strong> and <code>b</code></p>\n"
    assert "<span" in rendered("```python\ndef f(): return 1\n```")
    assert "<msup" in rendered(r"\(x^2\)")
    assert "<msup" in rendered("so $x^2$.")
    assert "msup" not in rendered("costs $5 and $6")
    assert "<code>" in rendered(r"$\notacommand{$")


def test_a_picture_is_told_and_not_fetched():
    assert rendered("![a cat](https://example.org/cat.png)") == '<p><span class="image">[image: a cat]</span></p>\n'


def test_a_very_long_text_is_shown_as_it_is():
    shown = rendered("*" + "a" * LONGEST + "*<b>")
    assert shown.startswith("<pre>*aaa")
    assert shown.endswith("*&lt;b&gt;</pre>")


def test_deep_nesting_is_shown():
    assert rendered("> " * 5_000 + "seen").endswith("&gt; seen</pre>")
    assert rendered("> " * 30 + "seen").count("<blockquote>") == 30
