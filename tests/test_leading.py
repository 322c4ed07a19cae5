"""What leads do: decide disputes, send judgements back, change the guideline, look and freeze."""

import csv
import json

import pytest

from preference_data.accounts import Accounts, Wanted
from preference_data.audit import entries
from preference_data.database import writing
from preference_data.errors import QueueError, StoreError
from preference_data.leading import Leading
from preference_data.opinions import ADJUDICATED
from preference_data.projects import ProjectSettings
from preference_data.queue import Candidate, Given
from preference_data.records import Pairwise, Verdict
from preference_data.requests import Requests
from preference_data.told import told
from tests.page_kit import Page, client, compare, served
from tests.tiny_model import build_tiny_model
from ui.chores import Chores
from ui.tables import agreement_rows, dispute_rows, minutes_csv, people_rows, progress_text
from workbench.workspace import Workspace

FIRST, SECOND, TIE = Pairwise(Verdict.FIRST, 2), Pairwise(Verdict.SECOND, 1), Pairwise(Verdict.TIE)


@pytest.fixture
def page(tmp_path):
    made = Page(tmp_path, overlap=2)
    made.leading = Leading(made.store.engine)
    made.ask(compare(1), compare(2))
    return made


def judge(page, person, opinion, count=1):
    for shown in page.queue.take("p", person, count=count).showings:
        page.queue.submit(shown.lease, person, Given(opinion=opinion))


def item_of(page):
    return told(page.store.engine, "p")[0].item


def test_an_item_sent_back_comes_first_with_the_reason_until_it_is_corrected(page):
    judge(page, "ann", FIRST)
    page.leading.send_back("p", item_of(page), "ann", reason="the second is wrong", by="lead")
    ((own, note),) = page.queue.take("p", "ann", count=1).back
    assert (own.judgement.opinion, note.reason) == (FIRST, "the second is wrong")
    page.queue.correct(own.showing.lease, "ann", Given(opinion=SECOND))
    assert page.queue.take("p", "ann", count=1).back == []
    assert [each.action for each in entries(page.store.engine, last=5)] == ["sent back"]


LEAD, PERSON = "lead@x.org", "person@x.org"


@pytest.fixture
def led(page):
    """A project of somebody who leads, where everything was done that keeps a name."""
    accounts = Accounts(page.store.engine)
    accounts.create(LEAD, None, "lead", by="root")
    accounts.create(PERSON, None, by=LEAD)
    page.projects.create("q", "pairwise", guideline="Be fair.", by=LEAD)
    page.queue.add("q", [Candidate(comparison=compare(1).key, needs={"person": PERSON})], by=LEAD)
    (shown,) = page.queue.take("q", PERSON, count=1).showings
    page.queue.submit(shown.lease, PERSON, Given(opinion=FIRST))
    (item,) = {each.item for each in told(page.store.engine, "q")}
    page.leading.comment("q", item, "odd", by=LEAD)
    page.leading.send_back("q", item, PERSON, reason="look", by=LEAD)
    page.leading.adjudicate("q", item, SECOND, why="clear", by=LEAD)
    page.queue.change("q", guideline="Be kind.", by=LEAD)
    accounts.change(PERSON, Wanted(state="paused"), by=LEAD)
    Requests(page.store.engine).file("k", "round", {}, by=LEAD)
    return page, item


def test_whoever_is_erased_is_erased_where_they_led_too(led, tmp_path):
    page, item = led
    before = entries(page.store.engine, last=20)
    lead, person = (page.store.erase_person(handle, reason="asked") for handle in (LEAD, PERSON))
    assert b"@x.org" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    after = entries(page.store.engine, last=20)
    assert [(each.action, each.at) for each in after] == [(each.action, each.at) for each in before]
    assert {each.by for each in after if each.action != "account created"} == {lead}
    assert next(each.facts for each in after if each.action == "sent back")["person"] == person
    assert {each.facts["account"] for each in after if each.action == "account created"} == {lead, person}
    assert [each.by for each in page.leading.comments("q", item)] == [lead]
    assert page.projects.get("q").by == lead
    assert [each.by for each in Requests(page.store.engine).all()] == [lead]
    page.store.verify_chain()


@pytest.mark.parametrize(
    "change",
    [
        "audit SET action = '\"x\"'",
        "audit SET facts = '{}'",
        'note SET "by" = \'"me"\'',
        'item SET "by" = \'"erased:9"\', draw = draw + 1',
        "item SET \"by\" = '\"erased:9\"', expected = '{}'",
        'request SET "by" = "by"',
    ],
)
def test_nothing_else_of_what_was_done_changes(led, change):
    page, _ = led
    with pytest.raises(StoreError, match="only grows: UPDATE refused"), writing(page.store.engine) as connection:
        connection.exec_driver_sql(f"UPDATE {change}")


@pytest.mark.parametrize(
    ("person", "reason", "why"), [("bob", "look", "'bob' has not judged it"), ("ann", " ", "reason: got none")]
)
def test_what_cannot_be_sent_back_is_said(page, person, reason, why):
    judge(page, "ann", FIRST)
    with pytest.raises(QueueError, match=why):
        page.leading.send_back("p", item_of(page), person, reason=reason, by="lead")


def test_a_decision_is_a_judgement_and_a_later_one_replaces_it(page):
    judge(page, "ann", FIRST)
    number = item_of(page)
    page.leading.adjudicate("p", number, SECOND, why="clear", by="lead")
    page.leading.adjudicate("p", number, TIE, why="less clear", by="lead")
    decided = [j for j in page.judgements() if ADJUDICATED in j.flags]
    assert [(j.opinion, j.supersedes) for j in decided] == [(SECOND, ""), (TIE, decided[0].key)]
    with pytest.raises(QueueError, match="got a skip; expected an opinion"):
        page.leading.adjudicate("p", number, Pairwise(Verdict.SKIP), why="", by="lead")
    with pytest.raises(QueueError, match="item 99: not in project"):
        page.leading.adjudicate("p", 99, TIE, why="", by="lead")


def test_leads_comment_on_items_for_each_other(page):
    with pytest.raises(QueueError, match="shown to nobody yet"):
        page.leading.comment("p", 1, "odd", by="lead")
    judge(page, "ann", FIRST)
    number = item_of(page)
    page.leading.comment("p", number, "odd", by="lead")
    page.leading.comment("p", number, "indeed", by="chief")
    assert [(each.text, each.by) for each in page.leading.comments("p", number)] == [
        ("odd", "lead"),
        ("indeed", "chief"),
    ]
    assert page.queue.take("p", "ann", count=1).back == []


def test_under_a_withdrawn_guideline_items_are_asked_again(page):
    judge(page, "ann", FIRST, count=2)
    assert page.queue.take("p", "ann", count=2).showings == []
    settings = ProjectSettings(overlap=2, counts_from=2, old_weight=0.0)
    page.queue.change("p", guideline="Be fairer.", settings=settings, by="lead")
    assert page.queue.progress("p").judgements == 0
    judge(page, "ann", SECOND, count=2)
    judge(page, "bob", SECOND, count=2)
    assert page.queue.progress("p").done == 2
    assert len(page.judgements()) == 6  # the old ones stay in the log


def test_tables_say_what_is_undefined(page):
    judge(page, "ann", FIRST, count=2)
    judge(page, "bob", FIRST)
    judge(page, "bob", TIE)
    everything = told(page.store.engine, "p")
    rows = {row[0]: row[1:] for row in agreement_rows(everything, "pairwise")}
    assert rows["equal answers"][:4] == ["0.500", "", 2, 4]
    assert rows["equal answers"][4] == "2 items are too few for an interval"
    assert [row[0] for row in people_rows(everything)] == ["ann", "bob"]
    assert dispute_rows(everything)[0][1:] == ["100 %", 2, "ann: A++; bob: tie"]
    assert progress_text(page.queue.progress("p")).startswith("2 of 2 items done, 0 skipped too often, 0 open")
    assert agreement_rows([], "thumb")[1] == ["Fleiss' kappa", "undefined", "", 0, 0, "no item has two judgements"]


def test_the_leads_page_lets_leads_in_and_nobody_else(page):
    accounts = Accounts(page.store.engine)
    password = "correct horse battery"
    accounts.create("ann", password, by="root")
    accounts.create("lea", password, "lead", by="root")
    with served(page.store) as url:
        with client(url) as http:
            assert http.get("/lead/").status_code == 401
            http.post("/api/login", json={"name": "ann", "password": password})
            assert http.get("/lead/").status_code == 401
            assert http.get("/lead/config").status_code == 401
        with client(url) as http:
            http.post("/api/login", json={"name": "lea", "password": password})
            shown = http.get("/lead/")
            assert shown.status_code == 200
            assert "connect-src 'self'" in shown.headers["content-security-policy"]
            assert http.get("/api/me").json()["leads"]


def test_chores_run_the_command_line_and_say_what_it_refused(tmp_path):
    assert Chores("").preview() == "Not done: this page knows no workspace; start it with `workbench page`"
    assert "no workspace" in Chores(str(tmp_path)).preview()
    assert Chores("").look(None) == ("Choose a file first.", [])


def test_an_import_shows_the_refused_rows_before_and_after(tmp_path):
    file = tmp_path / "mine.jsonl"
    good = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}
    file.write_text(f"{json.dumps(good)}\n{json.dumps(good | {'chosen': ''})}\n", encoding="utf-8")
    Workspace.init(tmp_path / "w", base=build_tiny_model(tmp_path / "base"))
    chores = Chores(str(tmp_path / "w"))
    for told_, refused in (chores.look(str(file)), chores.take_in(str(file))):
        assert "| stored | 1 |" in told_
        [[line, reason, row]] = refused
        assert (line, json.loads(row)["rejected"]) == ("2", "No.")
        assert "chosen" in reason


def test_active_minutes_as_csv_hold_no_formula(page):
    judge(page, "=cmd()", FIRST, count=2)
    judge(page, "ann", FIRST)
    person, judged, skipped, minutes = (list(each) for each in zip(*csv.reader(
        minutes_csv(told(page.store.engine, "p")).splitlines()), strict=True))  # fmt: skip
    assert person == ["person", "'=cmd()", "ann"]
    assert (judged, skipped) == (["judged", "2", "1"], ["skipped", "0", "0"])
    assert minutes[0] == "active_min"
    assert all(float(each) < 1 for each in minutes[1:])
