"""Drift, rounds and compare pages without a browser: who may see them, what they say, what they ask a runner for."""

import csv
import io
import json
import re

import pytest

from preference_data.accounts import Accounts
from preference_data.freeze import FreezeRule
from preference_data.records import (
    Comparison,
    Completion,
    Judgement,
    Pairwise,
    Prompt,
    Sampled,
    Verdict,
    canonical_json,
    now,
)
from preference_data.requests import Requests
from preference_data.store import Entry
from tests import drift_kit
from tests.drift_kit import PLAIN, POLITE, World, capability, items, retention
from tests.page_kit import client, drift_served, running
from tests.rounds_kit import entries, settings
from tests.tiny_model import build_tiny_model
from workbench.acting import act_on_requests
from workbench.config import GateSettings, RoundSettings
from workbench.errors import PolicyError
from workbench.rejecting import reject, rejections
from workbench.reports.story import criteria
from workbench.rounds.plan import measuring_condition, plan_as_json, plan_digest
from workbench.rounds.progress import append_event
from workbench.tasks import Progress
from workbench.views.asked import runner_alive, sole_runner
from workbench.views.inspection import Inspection
from workbench.workspace import Workspace

world, web = drift_kit.world, drift_kit.web


def asked(ws):
    return [(r.kind, r.payload, r.by, r.state) for r in Requests(ws.store.engine).all()]


def test_policies_have_names_here_so_that_only_leads_come_in(world):
    accounts = Accounts(world.ws.store.engine)
    for name, role in (("lea", "lead"), ("ann", "annotator")):
        accounts.create(name, None, by="root", role=role)
    with drift_served(world.ws) as url, client(url) as web:
        for path in ("/drift", "/rounds", "/compare", "/drift/numbers.csv"):
            assert web.get(path).status_code == 401
            html = web.get(path, headers={"accept": "text/html"})
            assert (html.status_code, html.headers["location"]) == (307, "/login.html")
            for name, status in (("ann", 403), ("lea", 200)):
                assert web.get(path, headers={"cookie": f"session={accounts.begin(name)}"}).status_code == status


def test_a_page_of_another_site_cannot_ask_for_anything(web, world):
    answer = web.post("/rounds", content="version=plain&do=start", headers={"origin": "https://elsewhere.example"})
    assert answer.status_code == 403
    assert asked(world.ws) == []


def test_cells_hold_the_numbers_of_the_ledger_and_lead_to_their_rows(web, world):
    page = web.get("/drift").text
    titles = re.findall(r'<td class="[^"]*" title="([^"]*)"', page)
    assert any(t.startswith("round-2 on plain: accuracy 0.70 [") and "from parent -0.10 [" in t for t in titles)
    link = re.search(rf'href="(\?policy=[^"]*{PLAIN}#rows)"', page)[1].replace("&amp;", "&")
    rows = web.get("/drift/rows" + link.split("#")[0]).text
    assert "accuracy of" in rows
    assert re.search(r"worse \d+", rows)


def test_rows_of_a_fallen_cell_are_counted_sorted_and_taken_away(web, world):
    cell = {"policy": world.second.digest[:16], "cell": f"{world.second.digest[:16]} accuracy retention/{PLAIN}"}
    page = web.get("/drift/rows", params=cell).text
    assert "worse 2" in page
    assert page.index("<b>worse</b>") < page.index("<b>the same</b>")
    lost = web.get("/drift/rows.csv", params={**cell, "turn": "lost"}).text
    assert [row["item"] for row in csv.DictReader(io.StringIO(lost))] == ["'014", "'015"] or "014" in lost
    lines = [json.loads(line) for line in web.get("/drift/rows.jsonl", params=cell).text.splitlines()]
    assert [line["turn"] for line in lines].count("lost") == 2
    against_base = web.get("/drift/rows", params={**cell, "against": "base"}).text
    assert "Compared with tiny" in against_base
    assert "better 4" in against_base  # 10 right before, 14 now


@pytest.mark.parametrize("cell", ["", "x", "0000 accuracy retention", "nothing at all here"])
def test_an_address_that_names_no_number_says_so(web, cell):
    assert web.get("/drift/rows", params={"cell": cell}).status_code == 404


def test_numbers_of_a_figure_come_as_csv_that_no_spreadsheet_runs(web, world):
    rows = list(csv.DictReader(io.StringIO(web.get("/drift/numbers.csv", params={"figure": "newest"}).text)))
    assert {row["suite"] for row in rows} == {f"retention/{PLAIN}", f"retention/{POLITE}"}
    assert all(row["name"] == "from parent" and row["n"] == "20" for row in rows)
    page = web.get("/drift").text
    for figure in re.findall(r"figure=(\w+)\">CSV", page):
        assert len(web.get("/drift/numbers.csv", params={"figure": figure}).text.splitlines()) > 1, figure
    assert {"frontier", "pareto", "kl", "tax"} <= set(re.findall(r"figure=(\w+)\">CSV", page))
    world.ws.versions.add("=cmd|' /C calc'!A0", "e" * 64)
    everything = web.get("/drift/numbers.csv").text
    assert "\n=" not in everything
    assert web.get("/drift/numbers.exe").status_code == 404


def test_only_what_changed_gets_another_hash(web, world):
    before = web.get("/drift/state").json()["parts"]
    assert web.get("/drift/state").json()["parts"] == before
    world.record(world.second, capability(19, 810)[:1])  # known already: nothing changes
    assert web.get("/drift/state").json()["parts"] == before
    world.record(world.second, retention("c" * 64, 12))
    after = web.get("/drift/state").json()["parts"]
    assert {name for name in before if before[name] != after[name]} == {"matrix"}
    assert "later" in web.get("/drift/part/matrix").text


def test_a_page_that_stays_open_is_told_of_a_newer_policy_and_of_rounds_that_really_run(web, world):
    state = web.get("/drift/state", params={"policy": world.first.digest}).json()
    assert (state["newest"], state["running"]) == (world.second.digest, False)
    world.ws.journal.begin("e" * 64, 3, world.ws.journal.rounds()[-1].plan)  # begun, and then killed
    assert web.get("/drift/state").json()["running"] is False


def test_a_frozen_version_is_news(world):
    before = Inspection(world.ws).stamp()
    assert Inspection(world.ws).stamp() == before
    world.ws.versions.add("august", "d" * 64)
    assert Inspection(world.ws).stamp() != before


def test_shorter_answers_are_called_shorter_and_not_worse(web, world):
    both = {"first": world.ws.registry.resolve("base").digest, "second": world.first.digest}
    page = web.get("/compare", params=both | {"suite": f"samples/{PLAIN}"}).text
    assert "6 shorter, 0 longer, 0 as long in the second" in page
    refused = web.get("/compare", params=both | {"suite": "refusal"}).text
    assert "0 refuses now, 0 no longer refuses, 10 as before in the second" in refused


def test_what_was_measured_otherwise_is_not_compared(web, world):
    page = web.get("/compare").text
    assert 'value="extra"' not in page
    for policy, condition in ((world.first, "other"), (world.second, None)):
        world.record(policy, items("extra", "correct", [1.0] * 6), condition=condition)
    assert 'value="extra"' not in web.get("/compare").text


def test_the_gate_shares_its_false_alarms_among_what_it_judges():
    row = {"passed": True, "rule": "", "reason": "", "value": None}
    verdict = {"criteria": [
        row | {"name": "tax/choice", "threshold": 0.02}, row | {"name": "tax/lm-eval/hellaswag", "threshold": 0.02},
        row | {"name": f"retention/{PLAIN}", "threshold": None},  # replaced by this round
        row | {"name": "tax/text/0123456789ab", "threshold": 0.02},
    ]}  # fmt: skip
    found = {one.name: one.alarms for one in criteria(verdict, {PLAIN: "plain"})}
    assert found == {
        "tax: choice": "1.7 %",
        "tax: lm-eval/hellaswag": "1.7 %",
        "tax: text": "1.7 %",
        "retention: plain": "",
    }


def test_a_pinned_baseline_is_compared_on_every_version(web):
    page = web.get("/drift", params={"against": "base"}).text
    assert "against the pinned baseline" in page
    assert "+0.200 [" in page  # plain: 14 right now, 10 of the base


def test_an_unknown_policy_and_an_unknown_round_are_told(web, world):
    assert "unknown; there are: tiny" in web.get("/drift", params={"policy": "nobody"}).json()["detail"]
    assert web.get("/rounds/ffff").status_code == 404
    for path in ("/drift?against=nobody", f"/rounds/{world.ws.journal.rounds()[0].digest}/pairs"):
        answer = web.get(path)  # a baseline nobody knows; a version whose folder is gone
        assert (answer.status_code, "message" in answer.json()) == (409, True), path
    assert web.get("/compare", params={"first": "nobody"}).status_code == 404


def test_an_empty_workspace_says_what_to_do(tmp_path):
    world = World(tmp_path)
    with drift_served(world.ws) as url, client(url) as web:
        page = web.get("/drift").text
        assert "Nothing was measured yet" in page
        assert "workbench plan" in page
        assert "No round yet" in web.get("/rounds").text
        assert "Nobody has judged answers of two policies yet" in web.get("/compare").text


def test_hostile_names_and_answers_stay_text(tmp_path):
    world = World(tmp_path)
    hostile = "</script><img src=x onerror=alert(1)>"
    world.ws.versions.add(hostile, "d" * 64)
    plan = world.plan(world.base, "d" * 64)
    child = world.child(plan, 1.0)
    world.condition = measuring_condition(plan)
    for policy, count in ((world.base, 10), (child, 16)):
        world.record(policy, retention("d" * 64, count))
    world.finish(plan, child)
    with drift_served(world.ws) as url, client(url) as web:
        for path in ("/drift", "/rounds", "/compare", f"/rounds/{world.ws.journal.rounds()[0].digest}"):
            page = web.get(path)
            assert page.status_code == 200, path
            assert "<img" not in page.text
            assert "script-src 'self'" in page.headers["content-security-policy"]


def test_a_round_is_planned_on_the_page_and_asked_for_once(web, world):
    form = {"version": "polite", "method": "mix", "objective.beta": "0.3", "more": "[training]\nepochs = 2", "once": "k",
            "do": "start"}  # fmt: skip
    for _ in range(2):
        assert web.post("/rounds", data=form).status_code == 303
    wanted = {"version": "polite", "method": "mix", "objective": {"beta": 0.3}, "training": {"epochs": 2}}
    assert asked(world.ws) == [("round", {"settings": wanted}, "ann", "filed")]
    assert "filed" in web.get("/rounds").text


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"objective.beta": "much"}, "objective.beta"),
        ({"more": "epochs ="}, "not TOML"),
        ({"more": "[nonsense]\nx = 1"}, "unknown key"),
        ({"method": "magic"}, "magic"),
    ],
)
def test_settings_that_are_wrong_are_told_before_anything_is_asked(web, world, form, told):
    answer = web.post("/rounds", data={"do": "start", **form})
    assert answer.status_code == 409
    assert told in answer.text
    assert asked(world.ws) == []


def test_promoting_and_going_back_need_a_reason_and_a_runner(web, world):
    first, _ = world.ws.journal.rounds()
    assert web.post(f"/rounds/{first.digest}/promote", data={"reason": " "}).status_code == 409
    assert web.post(f"/rounds/{first.digest}/sell", data={}).status_code == 404
    assert web.post(f"/rounds/{first.digest}/promote", data={"reason": "2 forgets"}).status_code == 303
    done(world.ws)
    assert web.post(f"/rounds/{first.digest}/rollback", data={"reason": "it does not"}).status_code == 303
    done(world.ws)
    assert [state for *_, state in asked(world.ws)] == ["done", "done"]
    moves = world.ws.registry.history()[-2:]
    assert [(m.new, m.reason, m.by) for m in moves] == [
        (world.first.digest, "2 forgets", "ann"), (world.second.digest, "it does not", "ann")
    ]  # fmt: skip


def test_a_policy_is_rejected_by_hand_until_somebody_promotes_it(web, world):
    _, second = world.ws.journal.rounds()
    assert web.post(f"/rounds/{second.digest}/reject", data={"reason": ""}).status_code == 409
    assert web.post(f"/rounds/{second.digest}/reject", data={"reason": "rude <b>in German</b>"}).status_code == 303
    # It was champion: the runner takes it back, and the page says both.
    web.post(f"/rounds/{second.digest}/reject", data={"reason": "twice"})  # before the runner came to it
    done(world.ws)
    assert [(kind, state) for kind, *_, state in asked(world.ws)] == [("rollback", "done"), ("rollback", "failed")]
    assert world.ws.registry.resolve("champion").digest == world.first.digest
    page = web.get(f"/rounds/{second.digest}").text
    assert "Rejected by ann" in page
    assert "twice" in page
    assert ">rejected<" in web.get("/rounds").text
    assert list(rejections(world.ws)) == [world.second.digest]

    world.ws.promote(world.second.digest, reason="it was another policy", by="bo")
    assert rejections(world.ws) == {}
    assert "Rejected by" not in web.get(f"/rounds/{second.digest}").text
    # Said of one that is not champion, it moves nothing, and it is passed over when a champion gives way.
    first = world.ws.journal.rounds()[0]
    assert web.post(f"/rounds/{first.digest}/reject", data={"reason": "rude <b>in German</b>"}).status_code == 303
    assert len(asked(world.ws)) == 2
    assert "rude &lt;b&gt;in German&lt;/b&gt;" in web.get(f"/rounds/{first.digest}").text
    reject(world.ws, "champion", reason="this one, too", by="bo")
    assert world.ws.registry.resolve("champion").digest == world.base.digest
    with pytest.raises(PolicyError, match="is a base"):
        reject(world.ws, "base", reason="why not", by="bo")


def test_a_judgement_leads_to_the_rounds_that_trained_on_it(tmp_path):
    ws = Workspace.init(tmp_path / "ws", base=build_tiny_model(tmp_path / "model"))
    ws.store.add(entries(40, source="polite", better="yes please", worse="no"))
    ws.freeze(name="polite", rule=FreezeRule(sources=("polite",)))
    plan = ws.plan(settings(version="polite"))
    ws.journal.begin(plan_digest(plan), plan.number, canonical_json(plan_as_json(plan)))
    later = ws.plan(settings(version="polite", training={"seed": 9}))  # begun, and never ended: it taught nothing
    ws.journal.begin(plan_digest(later), later.number, canonical_json(plan_as_json(later)))
    ws.journal.finish(plan_digest(plan), "promoted", child=ws.registry.resolve("base").digest)
    trained, tested = (ws.version("polite").pairs(split)[0] for split in ("train", "test"))
    with drift_served(ws) as url, client(url) as web:
        pairs = web.get(f"/rounds/{plan_digest(plan)}/pairs").text
        assert f"/judgements/{trained.judgements[0]}" in pairs
        page = web.get(f"/judgements/{trained.judgements[0]}").text
        assert "trained on in <a href" in page
        assert f"/rounds/{plan_digest(plan)}" in page
        assert plan_digest(later) not in page
        assert trained.chosen in page
        assert "measured in" in web.get(f"/judgements/{tested.judgements[0][:12]}").text
        for nobody in ("0" * 64, "<b>short", tested.judgements[0][:7]):
            assert "No version on this disk" in web.get(f"/judgements/{nobody}").text
        assert "<b>short" not in web.get("/judgements/<b>short").text


def test_a_round_that_failed_hangs_below_its_parent_and_is_tried_again(web, world):
    plan = world.plan(world.second, "c" * 64)
    digest = plan_digest(plan)
    world.ws.journal.begin(digest, plan.number, canonical_json(plan_as_json(plan)))
    world.ws.journal.finish(digest, "failed", message="the loss is not finite")
    assert "the loss is not finite" in web.get("/drift").text
    page = web.get(f"/rounds/{digest}").text
    assert "Try again" in page
    assert web.get("/rounds").text.count("failed") >= 1


def test_a_round_on_fresh_answers_shows_what_they_earn(web, world):
    record = world.ws.journal.rounds()[-1]
    for step, reward in enumerate((0.5, 1.5), start=1):
        facts = {"loss": 0.1, "reward": reward, "guard": 0.2, "kl": 0.3, "apart": 0.01, "kl_parent": 0.0,
                 "entropy_chosen": 2.0, "entropy_rejected": 3.0, "top1_chosen": 0.5, "top1_rejected": 0.25}  # fmt: skip
        append_event(world.ws.engine, record.digest, Progress("optimise", step, 2, facts))
    page = web.get(f"/rounds/{record.digest}").text
    for title in (
        *("Reward of its own answers", "What the guard", "KL to the anchors", "Log-prob where written"),
        *(f"Entropy of what predicts a token of {side} answers" for side in ("chosen", "rejected")),
        *(f"Tokens of {side} answers that are the likeliest" for side in ("chosen", "rejected")),
    ):
        assert f"<h3>{title}" in page
    # A round on pairs has no such numbers, and no empty frames for them.
    other = web.get(f"/rounds/{world.ws.journal.rounds()[0].digest}").text
    assert '<section class="tile" data-part="reward"></section>' in other


def test_a_running_round_can_be_stopped(web, world):
    record = world.ws.journal.rounds()[-1]
    assert web.post(f"/rounds/{record.digest}/stop").status_code == 303
    assert world.ws.journal.status(record.digest).stop_requested


def test_thresholds_are_set_with_a_history_and_hold_for_rounds_that_state_none(web, world):
    form = {name: str(value) for name, value in GateSettings()} | {"max_tax": "0.07", "reason": "texts are noisy"}
    assert web.post("/thresholds", data=form).status_code == 303
    assert web.post("/thresholds", data=form | {"max_tax": "lots"}).status_code == 409
    assert web.post("/thresholds", data=form | {"max_tax": "-1", "once": "x"}).status_code == 409
    done(world.ws)
    assert "texts are noisy" in web.get("/rounds").text
    settings = RoundSettings(version="latest")
    world.ws.versions.add("frozen", frozen_version(world.ws))
    assert world.ws.plan(settings.model_copy(update={"version": "frozen"})).gate.max_tax == 0.07
    own = RoundSettings.model_validate({"version": "frozen", "gate": {"min_gain": 0.1}})
    assert world.ws.plan(own).gate.max_tax == GateSettings().max_tax


def frozen_version(ws):
    from preference_data.records import Pair
    from preference_data.versions import write_version

    pair = Pair(Prompt.of("q"), "a", "b", 1.0, None, (), {}, "train")
    return write_version([pair], ws.versions.directory, rule={}, watermark=0, head="").digest


def done(ws, count=100):
    """Let a runner do what was asked for."""
    left = [count]

    def enough():
        left[0] -= 1
        return left[0] < 0 or all(r.state in {"done", "failed"} for r in Requests(ws.store.engine).all())

    with sole_runner(ws.root):
        assert runner_alive(ws.root)
        act_on_requests(ws, where="here", tell=lambda _: None, until=enough)
    assert not runner_alive(ws.root)


def test_a_runner_says_why_something_was_not_done_and_goes_on(world):
    requests = Requests(world.ws.store.engine)
    requests.file("a", "promote", {"policy": "nobody", "reason": "why not"}, by="ann")
    requests.file("b", "round", {"settings": {"version": "no such"}}, by="ann")
    requests.file("c", "round", {"round": "0" * 64}, by="ann")
    requests.file("d", "promote", {"policy": world.first.digest, "reason": "it is better"}, by="ann")
    done(world.ws)
    found = requests.all()
    assert [r.state for r in found] == ["failed", "failed", "failed", "done"]
    assert "nobody" in found[0].message
    assert "no such" in found[1].message
    assert "unknown" in found[2].message


def test_what_a_killed_runner_had_begun_is_done_by_the_next(world):
    requests = Requests(world.ws.store.engine)
    requests.file("a", "promote", {"policy": world.first.digest, "reason": "back"}, by="ann")
    assert requests.claim("runner-of-old") is not None
    done(world.ws)
    assert requests.get("a").state == "done"


def test_two_runners_are_one_too_many(world):
    from workbench.errors import JournalError

    with (
        sole_runner(world.ws.root),
        pytest.raises(JournalError, match="acts on requests here"),
        sole_runner(world.ws.root),
    ):
        pass


@pytest.mark.slow
def test_a_round_asked_for_on_the_page_is_run_watched_and_planned_again_alike(tmp_path):
    from tests.test_cli import write_votes

    ws = Workspace.init(tmp_path / "ws", base=build_tiny_model(tmp_path / "base"), name="tiny")
    ws.import_file(write_votes(tmp_path / "votes.jsonl", "yes", "no"))
    ws.freeze(name="first")
    more = ('[evaluation]\nsuites = ["refusal"]\nsamples = 6\nmax_new_tokens = 4\n'
            "[training]\nmax_length = 96\nrank = 4\nbatch_size = 8\nlearning_rate = 0.01")  # fmt: skip
    with drift_served(ws) as url, client(url) as web:
        cost = web.post("/rounds", data={"version": "first", "more": more, "do": "cost"}, timeout=120)
        assert "optimizer steps" in cost.text
        assert web.post("/rounds", data={"version": "first", "more": more, "do": "start"}).status_code == 303
        done(ws)
        (record,) = ws.journal.rounds()
        page = web.get(f"/rounds/{record.digest}").text
        assert "optimise" in page
        taught = web.get(f"/rounds/{record.digest}/pairs").text
        assert ">yes</pre>" in taught
        assert "1 judgement:" in taught
        assert "Gate:" in page
        assert f"/drift?policy={record.child[:16]}" in page
        assert web.get("/drift").status_code == 200
        assert web.post(f"/rounds/{record.digest}/again").status_code == 303
        done(ws)
        # The settings shown make the same round, so that going on with it makes no other.
        assert [r.digest for r in ws.journal.rounds()] == [record.digest]
        assert [state for *_, state in asked(ws)] == ["done", "done"]


def test_both_answer_a_prompt_where_the_endpoint_serves_them(world):
    from tests.test_arena import NUMERICS, ref, speak
    from ui.arena import Arena
    from workbench.runner import endpoint

    first, second = world.first.digest, world.second.digest
    serving = {"one": ref(first), "two": ref(second)}
    with (
        running(lambda _: endpoint(speak, serving, NUMERICS, key="k")) as url,
        drift_served(world.ws, arena=Arena(world.ws.store, f"{url}/v1", "k")) as page,
        client(page) as web,
    ):
        assert "Ask both" in web.get("/compare").text
        asked = {"prompt": "hello", "first": first, "second": second}
        said = web.post("/compare/say", json=asked).json()
        assert said == {
            "first": f"I am {first[-1]} and heard hello.",
            "second": f"I am {second[-1]} and heard hello.",
        }
        missing = web.post("/compare/say", json=asked | {"first": world.base.digest})
        assert (missing.status_code, "does not serve" in missing.json()["detail"]) == (409, True)
        assert web.post("/compare/say", json=asked | {"prompt": "break"}).status_code == 503
    with drift_served(world.ws) as page, client(page) as web:
        assert "Ask both" not in web.get("/compare").text


def test_policies_are_ranked_by_what_people_preferred(web, world):
    entries = []
    for i in range(20):
        made = tuple(Completion(f"answer {k} to {i}", Sampled(p, 1.0, 1.0, 8, i))
                     for k, p in enumerate((world.first.digest, world.second.digest)))  # fmt: skip
        comparison = Comparison(Prompt.of(f"question {i}"), made, "made", {})
        verdict = Pairwise(Verdict.FIRST if i < 15 else Verdict.SECOND, 2)
        said = Judgement(comparison.key, "ann", verdict, at=now())
        entries.append(Entry(comparison, (said,)))
    world.ws.store.add(entries)
    page = web.get("/compare", params={"first": world.first.digest, "second": world.second.digest}).text
    assert "0.75 [" in page
    assert "Bradley-Terry over 20 judgements" in page
    file = web.get(
        "/compare/comparator.json", params={"first": world.first.digest, "second": world.second.digest}
    ).json()
    assert [model["name"] for model in file["models"]] == ["round-1", "round-2"]
    assert file["examples"][0]["output_text_a"] != file["examples"][0]["output_text_b"]
