"""What the rounds page fills in, and what becomes of promotions, rejections and steps back."""

import json
import re
import tomllib
from html import unescape

import pytest

from preference_data import audit
from preference_data.database import writing
from preference_data.records import canonical_json
from tests import drift_kit
from tests.drift_kit import LATER, PLAIN
from tests.test_drift_page import asked, done, frozen_version
from ui import rounds
from ui.chores import Chores
from workbench import rejecting
from workbench.errors import PolicyError
from workbench.rebasing import settings_of, to_copy
from workbench.rejecting import note_rejection
from workbench.rounds.plan import plan_as_json, plan_digest
from workbench.views.inspection import Inspection

SAME = ("refusal", "lm-eval/hellaswag")


world, web = drift_kit.world, drift_kit.web


def own_questions(world, name="mine"):
    """A round that measures questions of a file beside two suites known by name."""
    suites = [*SAME, f"file:/somewhere/{name}.jsonl#0123456789ab"]
    plan = world.plan(world.second, LATER, evaluation={"suites": suites})
    world.ws.journal.begin(plan_digest(plan), plan.number, canonical_json(plan_as_json(plan)))
    return world.ws.journal.rounds()[-1]


@pytest.mark.parametrize("name", ["mine", "mine\nseed = 9", 'my "own"'])
def test_a_plan_to_copy_names_the_suites_that_are_not_in_it(world, name):
    record = own_questions(world, name)
    assert "Not in here" not in to_copy(world.ws.journal.rounds()[0].plan)
    text = to_copy(record.plan)
    line = text.splitlines()[0]
    assert line.startswith(f"# Not in here: {json.dumps(f'{name}/0123456789ab')}; to measure it again, add file:PATH")
    values = tomllib.loads(text)["evaluation"]
    assert (tuple(values["suites"]), values["seed"]) == (SAME, 0)
    assert settings_of(record.plan).evaluation.suites == SAME


def test_a_round_planned_again_with_a_change_says_which_suites_it_lacks(web, world):
    record = own_questions(world, "<b>mine")
    again = {"again": record.digest[:16], "change": "replay.share = 0.25"}
    page = web.get("/rounds", params=again).text
    assert "the form lacks <code>&lt;b&gt;mine/0123456789ab</code>" in page
    assert '# Not in here: "<b>mine/0123456789ab"' in unescape(page)
    assert "\nshare = 0.25" in unescape(page)
    assert "<b>mine" not in page
    for path in (f"/rounds/{record.digest}", "/drift"):  # the plan to copy; that of the newest policy lacks nothing
        assert ("# Not in here" in web.get(path).text) == (path != "/drift")
    whole = web.get("/rounds", params={"again": world.ws.journal.rounds()[0].digest}).text
    assert "the form lacks" not in whole
    assert "the form lacks" not in web.get("/rounds", params={"unnamed": "x"}).text


def test_people_are_asked_again_about_the_policy_and_the_slice_that_are_looked_at(web, world, monkeypatch):
    frozen = frozen_version(world.ws)
    world.ws.versions.add("frozen", frozen)
    cell = {"cell": f"{world.first.digest[:16]} accuracy retention/{PLAIN}", "within": "language=<de>"}
    form = web.get("/drift/rows", params=cell).text
    for name, value in (("version", PLAIN), ("policy", world.first.digest), ("within", "language=&lt;de&gt;")):
        assert f'<input type="hidden" name="{name}" value="{value}"><' in form
    assert "what round-1 forgot of it in language=&lt;de&gt; first" in form
    given, weighted = [], 0
    monkeypatch.setattr(Chores, "_run", lambda _, *words: given.append(words) or {"added": 3, "weighted": weighted})
    asked = {"version": frozen, "policy": world.first.digest, "within": "language=de"}
    told = web.post("/drift/ask", data=asked).text
    assert {f"--{name}={value}" for name, value in asked.items()} <= set(given[0])
    assert "No slice of them fell there, so that chance alone chose them" in told
    weighted = 2
    assert "chance" not in web.post("/drift/ask", data=asked).text


def champion(world):
    return world.ws.registry.resolve("champion").digest


def roll_back(web, record):
    return web.post(f"/rounds/{record.digest}/rollback", data={"reason": "it is rude"})


def test_two_who_go_back_at_once_go_back_one_step(web, world):
    _, second = world.ws.journal.rounds()
    assert [roll_back(web, second).status_code for _ in range(2)] == [303, 303]
    done(world.ws)
    assert champion(world) == world.first.digest
    assert [(kind, state) for kind, *_, state in asked(world.ws)] == [("rollback", "done"), ("rollback", "failed")]
    stale = roll_back(web, second)  # from a page that was opened before
    assert (stale.status_code, "the champion is round-1 by now" in stale.json()["detail"]) == (409, True)
    assert len(asked(world.ws)) == 2


def test_nobody_goes_back_to_what_was_rejected(web, world):
    first, second = world.ws.journal.rounds()
    assert roll_back(web, second).status_code == 303
    # Rejected before the runner came to it.
    assert web.post(f"/rounds/{first.digest}/reject", data={"reason": "ruder still"}).status_code == 303
    done(world.ws)
    assert champion(world) == world.base.digest
    world.ws.promote(world.second.digest, reason="it was another policy", by="bo")
    assert world.ws.rollback(reason="no", by="bo").digest == world.base.digest
    assert world.ws.rollback(reason="by name", by="bo", to="round-1").digest == world.first.digest
    world.ws.rollback(reason="back", by="bo")
    with pytest.raises(PolicyError, match="no champion before the present one that nobody rejected"):
        world.ws.rollback(reason="further", by="bo")


def test_a_policy_promoted_twice_is_not_its_own_predecessor(world):
    note_rejection(world.ws, world.second.digest, reason="rude", by="bo")
    world.ws.promote(world.first.digest, reason="rather this", by="bo")  # base, first, second, first
    assert world.ws.rollback(reason="nor this", by="bo").digest == world.base.digest


def test_a_rejection_by_hand_is_seen_in_the_lineage_of_a_page_that_is_open(web, world):
    before = web.get("/drift/state").json()["parts"]
    assert "round-1: promoted<" in web.get("/drift/part/lineage").text
    first = world.ws.journal.rounds()[0]
    assert web.post(f"/rounds/{first.digest}/reject", data={"reason": "rude"}).status_code == 303
    after = web.get("/drift/state").json()["parts"]
    assert {name for name in before if before[name] != after[name]} == {"lineage"}
    assert "round-1: rejected<" in web.get("/drift/part/lineage").text
    assert "from tiny, rejected." in web.get("/drift/part/head", params={"policy": world.first.digest}).text
    page = web.get("/drift", params={"policy": world.first.digest}).text
    assert "round-1 (rejected)</option>" in page
    assert "1 round from tiny, rejected." in page
    world.ws.promote(world.first.digest, reason="it was another policy", by="bo")
    assert "round-1: promoted, champion<" in web.get("/drift/part/lineage").text


def test_rejections_are_found_however_much_else_was_written_down(world, monkeypatch):
    note_rejection(world.ws, world.first.digest, reason="rude", by="bo")
    with writing(world.ws.store.engine) as connection:
        for number in range(3):
            audit.record(connection, "something else", {"number": number}, by="bo")
    monkeypatch.setattr(rejecting, "LOOKED_BACK", 3)
    assert list(rejecting.rejections(world.ws)) == [world.first.digest]


def test_the_moves_of_the_champion_stand_newest_first_with_their_reasons(web, world, monkeypatch):
    world.ws.promote(world.base.digest, reason="all were <i>rude</i>", by="bo & co")
    world.ws.rollback(reason="not so rude", by="ann")
    table = web.get("/rounds").text.split("How the champion moved</h2>")[1].split("</section>")[0]
    rows = [re.sub(r"</?a[^>]*>", "", row) for row in table.split("<tr>")[2:]]
    cells = [re.findall(r"<td>(.*?)</td>", row) for row in rows]
    assert [row[1:] for row in cells] == [
        ["rollback", "tiny", "round-2", "ann", "not so rude"],
        ["promote", "round-2", "tiny", "bo &amp; co", "all were &lt;i&gt;rude&lt;/i&gt;"],
        ["promote", "round-1", "round-2", "test", "gate passed"],
        ["promote", "tiny", "round-1", "test", "gate passed"],
        ["promote", "", "tiny", "registry", "first base"],
    ]
    assert cells[0][0] == world.ws.registry.history()[-1].at[:16].replace("T", " ")
    monkeypatch.setattr(rounds, "LAST", 2)
    assert "3 earlier ones" in web.get("/rounds").text
    monkeypatch.setattr(Inspection, "moves", lambda _: ())
    assert "It has not moved yet" in web.get("/rounds").text
