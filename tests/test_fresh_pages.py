"""What pages and reports say of rounds that learned from their own fresh answers, which no pair taught. Over HTTP."""

import re
from dataclasses import replace
from html import unescape

import pytest

from preference_data.freeze import FreezeRule
from preference_data.records import canonical_json
from preference_data.requests import Requests
from tests.drift_kit import PLAIN, POLITE, World, retention, two_rounds_in
from tests.page_kit import client
from tests.rounds_kit import entries, settings
from tests.test_drift_page import drift_served
from tests.tiny_model import build_tiny_model
from workbench.config import GateSettings, OnlineSettings
from workbench.reports.document import markdown_report
from workbench.rounds.plan import plan_as_json, plan_digest
from workbench.rounds.progress import append_event
from workbench.tasks import Progress
from workbench.views import change_lines, next_steps
from workbench.workspace import Workspace

ONLINE = OnlineSettings.model_validate({"objective": "grpo", "rewards": [{"by": "rule:telegram"}]})


@pytest.fixture
def world(tmp_path):
    """Round 1 learns from the pairs of `plain`, round 2 from its own answers to the prompts of `polite`."""
    found = two_rounds_in(World(tmp_path), online=ONLINE)
    for step, reward in enumerate((0.5, 0.75, 1.0, 1.5), start=1):
        facts = {
            "loss": 0.1,
            "reward": reward,
            "kl": 0.9,
            "kl_per_token": 0.1 * step,
            "answer_tokens": 20 + step,
            "distinct_answers": 0.5,
            "truncated": 0.25,
        }
        append_event(found.ws.engine, plan_digest(found.second_plan), Progress("optimise", step, 4, facts))
    return found


@pytest.fixture
def web(world):
    with drift_served(world.ws) as url, client(url) as found:
        yield found


EARNED = [
    ("objective", "grpo"),
    ("mean reward of its answers, first steps", "0.625"),  # the first two of four: (0.5 + 0.75) / 2
    ("mean reward of its answers, last steps", "1.250"),  # (1.0 + 1.5) / 2
    # Of six answers of five tokens each to held-out prompts: 0.3 and 0.2 nats at every token.
    ("KL to tiny, nats per token", "0.300 [0.300, 0.300] n=6"),
    ("KL to round-1, nats per token", "0.200 [0.200, 0.200] n=6"),
    ("tokens an answer", "23.5"),  # (23 + 24) / 2
    ("share of answers cut off", "25%"),
]


def test_a_round_says_what_its_own_answers_earned_and_leads_to_them(web, world):
    first, second = world.ws.journal.rounds()
    page = web.get(f"/rounds/{second.digest}").text
    table = page.partition("What its own answers earned")[2].partition("</table>")[0]
    assert re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', table) == EARNED
    assert ">The pairs it took prompts from</a>" in page
    assert "The pairs that taught it" not in page
    assert '<section class="tile" data-part="loss"></section>' in page  # though the trainer said one
    for title in (
        "Reward of its own answers",
        "KL to the anchors, on its own answers",
        "Length of its own answers",
        "Its own answers cut",
        "Its own answers to a prompt that differ",
    ):
        assert f"<h3>{title}" in page
    (samples,) = re.findall(r'<a href="([^"]*)">Its answers to held-out prompts', page)
    assert "a b" in web.get(unescape(samples)).text  # what the made-up policy answers
    assert "What its own answers earned" in web.get(f"/rounds/{second.digest}/state").json()["parts"]["fresh"]
    on_pairs = web.get(f"/rounds/{first.digest}").text
    assert ">The pairs that taught it</a>" in on_pairs
    assert "What its own answers earned" not in on_pairs
    assert "own answers to prompts of polite" in web.get("/rounds").text
    assert "own answers to prompts of plain" not in web.get("/rounds").text


def test_the_drift_page_does_not_say_that_its_pairs_taught_it(web, world):
    page = unescape(web.get("/drift").text)
    told = "round 2 learned from its own answers to the prompts of 'polite' (grpo), not from its pairs: "
    assert told + ", ".join(f"{name} {value}" for name, value in EARNED[1:]) in page
    assert "on 'polite', whose prompts it answered afresh" in page
    assert "its own version:" not in page
    assert "round-2 on polite (answered its prompts afresh)" in page
    assert "round-1 on plain (trained on it)" in page
    assert "Framed: trained on, or its prompts answered afresh" in page
    assert "Fresh answers to its own version's prompts, not its pairs, taught round 2." in page
    before = unescape(web.get("/drift", params={"policy": world.first.digest}).text)
    assert "answered" not in before.partition("<h2>What happened")[2].partition("<h2>Lineage")[0]
    assert "Framed: trained on;" in before
    assert "not from its pairs" in markdown_report(world.ws, world.second.digest)


def test_a_fall_has_no_training_pairs_behind_it_and_rounds_that_hold_more(web, world):
    cell = {"policy": world.second.digest, "cell": f"{world.second.digest[:16]} accuracy retention/{PLAIN}"}
    rows = unescape(web.get("/drift/rows", params=cell).text)
    assert (
        "This round learned from its own answers and their rewards (grpo), so no training pair lies behind the fall"
        in rows
    )
    assert "Find the training pairs behind it" not in rows
    (link,) = re.findall(r'<a href="([^"]*)">Hold it more firmly', rows)
    again = unescape(web.get(link).text)
    assert "\nbeta = 0.1\nbeta_old = 0.1\n" in "\n".join(
        line for line in again.splitlines() if not line.startswith("#")
    )
    refused = web.post("/drift/explain", data={"policy": world.second.digest, "version": PLAIN})
    assert (refused.status_code, "no training pair" in refused.json()["detail"]) == (409, True)
    assert Requests(world.ws.store.engine).all() == []
    of_pairs = {"policy": world.first.digest, "cell": f"{world.first.digest[:16]} accuracy retention/{PLAIN}"}
    assert "Find the training pairs behind it" in web.get("/drift/rows", params=of_pairs).text


def test_a_round_steered_to_a_kl_is_held_more_firmly_by_half_of_it(tmp_path):
    steered = ONLINE.model_copy(update={"kl_target": 6.0})
    world = two_rounds_in(World(tmp_path), online=steered)
    cell = {"policy": world.second.digest, "cell": f"{world.second.digest[:16]} accuracy retention/{PLAIN}"}
    with drift_served(world.ws) as url, client(url) as web:
        (link,) = re.findall(
            r'<a href="([^"]*)">Hold it more firmly', unescape(web.get("/drift/rows", params=cell).text)
        )
    assert "online.kl_target+%3D+3" in link


def test_versions_only_whose_prompts_were_answered_are_told_apart_from_those_people_taught_with(tmp_path):
    ws = Workspace.init(tmp_path / "ws", base=build_tiny_model(tmp_path / "model"))
    ws.store.add(entries(40, source="polite", better="yes please", worse="no"))
    ws.freeze(name="polite", rule=FreezeRule(sources=("polite",)))
    base = ws.registry.resolve("base").digest
    records = []
    for online in ({}, ONLINE.model_dump(exclude_unset=True)):
        plan = ws.plan(settings(version="polite", online=online))
        ws.journal.begin(plan_digest(plan), plan.number, canonical_json(plan_as_json(plan)))
        records.append(plan_digest(plan))
    trained, tested = (ws.version("polite").pairs(split)[0] for split in ("train", "test"))
    with drift_served(ws) as url, client(url) as web:
        ws.journal.finish(records[1], "promoted", child=base)
        alone = " ".join(web.get(f"/judgements/{trained.judgements[0]}").text.split())
        assert (
            f'<td>its prompt among those answered afresh, itself not learned from, in <a href="/rounds/{records[1]}">'
            in alone
        )
        ws.journal.finish(records[0], "promoted", child=base)
        both = " ".join(web.get(f"/judgements/{trained.judgements[0]}").text.split())
        assert (
            f'<td>trained on in <a href="/rounds/{records[0]}">round 1</a>; its prompt among those answered afresh'
            in both
        )
        measured = " ".join(web.get(f"/judgements/{tested.judgements[0]}").text.split())
        assert all(f'/rounds/{record}">round 1</a>' in measured.partition("<td>measured in ")[2] for record in records)
        pairs = [web.get(f"/rounds/{record}/pairs").text for record in records]
    assert "<h1>Pairs that taught round 1</h1>" in pairs[0]
    assert "<h1>Pairs that round 1 took prompts from</h1>" in pairs[1]
    assert ["not from which of these two was preferred" in page for page in pairs] == [False, True]


def test_who_taught_what_says_of_which_versions_only_prompts_were_given(web, world):
    told = "The rounds on polite were given its prompts alone and learned from their own answers"
    assert told in web.get("/drift/people").text
    assert "prompts alone" not in web.get("/drift/people", params={"policy": world.first.digest}).text


def test_advice_names_settings_that_a_round_on_fresh_answers_has(tmp_path):
    strict = GateSettings(min_gain=0.9, max_retention_drop=0.0, max_kl_base=0.1)
    advice = {}
    for name, online in (("pairs", OnlineSettings()), ("fresh", ONLINE)):
        (tmp_path / name).mkdir()
        world = World(tmp_path / name)
        two_rounds_in(world, online=online)
        plan = replace(world.plan(world.second, POLITE), online=online, gate=strict)
        child = world.child(plan, 3.0)
        world.record(child, retention(PLAIN, 0), retention(POLITE, 15))
        verdict = world.finish(plan, child)
        report = world.report(child.digest)
        advice[name] = " ".join(next_steps(report, verdict.as_json()))
        assert ("whose prompts it answered afresh" in " ".join(change_lines(report))) == (name == "fresh")
    assert "training.epochs" in advice["pairs"]
    assert not re.search(r"online\.", advice["pairs"])
    assert "objective.beta" not in advice["fresh"]
    assert "training.epochs" not in advice["fresh"]
    assert "or lower training.learning_rate or online.steps" in advice["fresh"]
    assert "the pairs, which it did not learn from, are told apart no better" in advice["fresh"]
