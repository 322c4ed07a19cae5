"""Accounts: who is let in, for how long, and what may be said about it."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from preference_data import accounts as module
from preference_data.accounts import SESSION_H, Accounts, Wanted
from preference_data.audit import entries
from preference_data.errors import AccessRefused, QueueError
from preference_data.queue_schema import credential, session
from preference_data.store import Store
from tests.page_kit import Page, client, compare, served
from ui.people import Throttle

PASSWORD = "correct horse battery"


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/p.db") as opened:
        yield opened


@pytest.fixture
def accounts(store):
    made = Accounts(store.engine)
    made.create("ann", PASSWORD, by="root")
    return made


@pytest.fixture
def later(monkeypatch):
    def pass_by(hours):
        moment = datetime.now(UTC) + timedelta(hours=hours)
        monkeypatch.setattr(module, "now", lambda: moment)

    return pass_by


def test_a_password_is_kept_as_argon2id_and_a_session_as_a_digest(accounts, store):
    token = accounts.log_in("ann", PASSWORD)
    with store.engine.connect() as connection:
        (hashed,) = connection.execute(select(credential.c.hash)).scalars()
        (kept,) = connection.execute(select(session.c.token)).scalars()
    assert hashed.startswith("$argon2id$")
    assert token not in kept
    assert accounts.who(token).handle == "ann"


@pytest.mark.parametrize(("name", "password"), [("ann", "wrong"), ("bob", PASSWORD), ("", ""), ("ann", "x" * 2000)])
def test_what_is_not_known_together_is_refused_with_the_same_words(accounts, name, password):
    with pytest.raises(AccessRefused, match="not known together"):
        accounts.log_in(name, password)


def test_a_session_ends_unless_it_is_used(accounts, later):
    idle, used = accounts.log_in("ann", PASSWORD), accounts.log_in("ann", PASSWORD)
    later(SESSION_H * 0.75)
    assert accounts.who(used)
    later(SESSION_H * 1.25)
    assert accounts.who(idle) is None
    assert accounts.who(used).handle == "ann"


def test_logging_out_a_new_password_and_closing_end_sessions(accounts):
    one, two = accounts.log_in("ann", PASSWORD), accounts.log_in("ann", PASSWORD)
    accounts.log_out(one)
    assert (accounts.who(one), accounts.who(two).handle) == (None, "ann")
    accounts.set_password("ann", "another long password", by="root")
    assert accounts.who(two) is None
    three = accounts.log_in("ann", "another long password")
    accounts.change("ann", Wanted(state="closed", reason="left"), by="root")
    assert accounts.who(three) is None
    with pytest.raises(AccessRefused):
        accounts.log_in("ann", "another long password")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("ann", PASSWORD), "exists already"),
        ((" ", PASSWORD), "expected some text"),
        (("bob", "short"), "got 5 characters; expected 12 or more"),
        (("bob", PASSWORD, "boss"), "expected one of annotator, lead, admin"),
    ],
)
def test_unusable_accounts_are_refused(accounts, arguments, why):
    with pytest.raises(QueueError, match=why):
        accounts.create(*arguments, by="root")


def test_the_last_admin_stays(accounts):
    accounts.create("root", PASSWORD, "admin", by="root")
    with pytest.raises(QueueError, match="last active admin"):
        accounts.change("root", Wanted(role="lead"), by="root")
    accounts.change("ann", Wanted(role="admin"), by="root")
    assert accounts.change("root", Wanted(state="paused"), by="ann").state == "paused"


def test_what_was_done_to_accounts_is_in_the_audit_log_without_secrets(accounts, store):
    accounts.log_in("ann", PASSWORD)
    accounts.change("ann", Wanted(abilities={"language": ("de",)}, reason="tested"), by="root")
    found = entries(store.engine, last=10)
    assert [each.action for each in found] == ["account changed", "logged in", "account created"]
    assert found[0].facts["reason"] == "tested"
    assert PASSWORD not in repr(found)


def test_a_throttle_makes_wait_until_the_first_failure_is_old():
    at = [0.0]
    throttle = Throttle(2, 10, clock=lambda: at[0])
    throttle.failed("a")
    assert throttle.wait_s("a") == 0
    at[0] = 4
    throttle.failed("a")
    assert (throttle.wait_s("a"), throttle.wait_s("b")) == (6, 0)
    at[0] = 10
    assert throttle.wait_s("a") == 0


def test_nobody_logs_in_as_somebody_erased(accounts, store):
    token = accounts.log_in("ann", PASSWORD)
    pseudonym = store.erase_person("ann", reason="asked")
    assert accounts.who(token) is None
    for name in ("ann", pseudonym):
        with pytest.raises(AccessRefused):
            accounts.log_in(name, PASSWORD)


# ---------------------------------------------------------------------------------------------- on the page


@pytest.fixture
def web(tmp_path):
    page = Page(tmp_path)
    page.ask(compare(1), compare(2))
    page.accounts = Accounts(page.store.engine)
    page.accounts.create("ann", PASSWORD, by="root")
    with served(page.store) as url, client(url) as http:
        page.http = http
        yield page


def log_in(page, name="ann", password=PASSWORD):
    return page.http.post("/api/login", json={"name": name, "password": password})


def test_nobody_gets_anything_without_logging_in(web):
    for path in ("/api/me", "/api/projects", "/api/own?project=p"):
        assert web.http.get(path).status_code == 401, path
    for path, body in (
        ("/api/take", {"project": "p"}),
        ("/api/judge", {"lease": 1, "opinion": {"kind": "thumb", "up": True}}),
    ):
        assert web.http.post(path, json=body).status_code == 401, path


def test_whoever_logs_in_judges_under_their_name_until_they_log_out(web):
    answer = log_in(web)
    assert {"httponly", "samesite=strict"} <= {part.strip().lower() for part in answer.headers["set-cookie"].split(";")}
    assert web.http.get("/api/me").json() == {
        "person": "ann",
        "leads": False,
        "accounts": True,
        "arena": False,
        "drift": False,
    }
    (shown,) = web.http.post("/api/take", json={"project": "p", "count": 1}).json()["showings"]
    tie = {"kind": "pairwise", "verdict": "tie"}
    assert web.http.post("/api/judge", json={"lease": shown["lease"], "opinion": tie}).status_code == 200
    assert [j.annotator for j in web.judgements()] == ["ann"]
    token = web.http.cookies["session"]
    web.http.post("/api/logout")
    web.http.cookies.set("session", token)
    assert web.http.get("/api/me").status_code == 401


def test_wrong_passwords_are_throttled_by_name_and_address(web):
    answers = [log_in(web, password="wrong").status_code for _ in range(6)]
    assert answers == [403] * 5 + [429]
    refused = log_in(web)
    assert (refused.status_code, "try again in 5 min" in refused.json()["message"]) == (429, True)


def test_a_paused_person_is_told_and_shown_nothing(web):
    web.accounts.change("ann", Wanted(state="paused"), by="root")
    log_in(web)
    taken = web.http.post("/api/take", json={"project": "p"}).json()
    assert (taken["showings"], taken["why"]) == ([], "paused")


def test_what_one_person_said_is_not_kept_as_anothers(web):
    log_in(web)
    (shown,) = web.http.post("/api/take", json={"project": "p", "count": 1}).json()["showings"]
    body = {"lease": shown["lease"], "opinion": {"kind": "pairwise", "verdict": "tie"}}
    assert web.http.post("/api/judge", json=body, headers={"x-person": "b%C3%B6b"}).status_code == 401
    assert web.judgements() == []
    assert web.http.post("/api/judge", json=body, headers={"x-person": "ann"}).status_code == 200


def test_people_are_given_what_they_can_judge_and_do_not_avoid(web):
    web.ask(compare(3), needs={"language": "de"})
    web.ask(compare(4), needs={"language": "fi"})
    web.ask(compare(5, topic="war"))
    web.accounts.change("ann", Wanted(abilities={"language": ("de",)}, avoid={"topic": ("war",)}), by="root")
    log_in(web)
    shown = web.http.post("/api/take", json={"project": "p", "count": 9}).json()["showings"]
    assert sorted(each["turns"][0]["text"] for each in shown) == ["question 1?", "question 2?", "question 3?"]


@pytest.mark.parametrize("name", ["ai:judge", "rule:x", "reward:y", "simulated:z"])
def test_nobody_may_be_called_like_a_machine(accounts, name):
    with pytest.raises(QueueError, match="count as a machine's"):
        accounts.create(name, None, by="root")
