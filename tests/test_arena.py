"""The arena and the endpoint behind it: streaming, blind until the vote, stored with what it is about."""

import json

import httpx
import pytest

from preference_data.records import Pairwise, Verdict
from tests.page_kit import Page, client, running, served
from ui.arena import Arena
from workbench.config import NumericsSettings
from workbench.errors import PolicyError
from workbench.runner import endpoint
from workbench.tasks import PolicyRef

NUMERICS = NumericsSettings()


def ref(name):
    return PolicyRef(name, "full", name, name, name, name)


def speak(job):
    """Says who answers whom, word by word."""
    if job.prompt.messages[-1].content == "break":
        raise PolicyError("its files are gone")
    yield from (f"I am {job.policy.digest[-1]} ", "and heard ", f"{job.prompt.messages[-1].content}.")


def same(_):
    yield "the same"


def policies(*names):
    return {f"secret-{name}": ref(f"digest-{name}") for name in names}


@pytest.fixture
def runner():
    with running(lambda _: endpoint(speak, policies("a", "b"), NUMERICS, key="k")) as url:
        yield url


@pytest.fixture
def fight(tmp_path, runner):
    page = Page(tmp_path)
    with served(page.store, arena=Arena(page.store, f"{runner}/v1", "k")) as url, client(url) as page.http:
        yield page


def begin(page, prompt="hello"):
    return page.http.post("/api/arena/begin", json={"prompt": prompt}).json()["battle"]


def answer(page, battle, side):
    return [json.loads(line) for line in page.http.get(f"/api/arena/answer/{battle}/{side}").text.splitlines()]


def vote(page, battle, verdict="first", **more):
    return page.http.post("/api/arena/vote", json={"battle": battle, "verdict": verdict, **more})


def test_the_endpoint_answers_as_clients_of_such_endpoints_expect(runner):
    with httpx.Client(base_url=runner, headers={"authorization": "Bearer k"}) as http:
        assert [each["id"] for each in http.get("/v1/models").json()["data"]] == ["secret-a", "secret-b"]
        asked = {"model": "secret-a", "messages": [{"role": "user", "content": "hi"}], "logprobs": False}
        whole = http.post("/v1/chat/completions", json=asked).json()
        assert whole["choices"][0]["message"] == {"role": "assistant", "content": "I am a and heard hi."}
        streamed = http.post("/v1/chat/completions", json=asked | {"stream": True}).text.split("\n\n")
        assert streamed[-2:] == ["data: [DONE]", ""]
        chunks = [json.loads(line.removeprefix("data: "))["choices"][0] for line in streamed[:-2]]
        assert [chunk["delta"].get("content") for chunk in chunks] == ["I am a ", "and heard ", "hi.", None]
        assert chunks[-1]["finish_reason"] == "stop"
        assert http.post("/v1/chat/completions", json=asked | {"model": "x"}).status_code == 404
        assert http.get("/v1/models", headers={"host": "evil.example"}).status_code == 400
        assert http.get("/v1/models", headers={"authorization": "Bearer other"}).status_code == 401


def test_names_come_after_the_vote_and_the_vote_is_stored_with_the_answers(fight):
    battle = begin(fight)
    said = [answer(fight, battle, side) for side in (0, 1)]
    texts = [each[-1]["text"] for each in said]
    assert [[piece.get("piece") for piece in each[:-1]] for each in said] == [
        [f"I am {text[5]} ", "and heard ", "hello."] for text in texts
    ]
    assert "secret-" not in json.dumps([battle, *said])
    named = vote(fight, battle, "second", strength=3).json()["policies"]
    assert [name[-1] for name in named] == [text[5] for text in texts]
    (kept,) = fight.judgements()
    (entry,) = fight.store.entries()
    assert kept.opinion == Pairwise(Verdict.SECOND, 3)
    assert [c.text for c in entry.comparison.completions] == texts
    # under what the policy is, not under a name that may come to mean another
    assert [c.origin.policy for c in entry.comparison.completions] == [f"digest-{name[-1]}" for name in named]
    assert vote(fight, battle).status_code == 409  # once


def test_both_policies_stand_on_either_side(fight):
    first = {answer(fight, begin(fight), 0)[-1]["text"][5] for _ in range(12)}
    assert first == {"a", "b"}  # the chance that one stands there 12 times is 1 in 2048


def test_no_vote_before_the_end_and_none_for_another(fight):
    battle = begin(fight)
    answer(fight, battle, 0)
    refused = vote(fight, battle)
    assert (refused.status_code, "not complete" in refused.json()["message"]) == (409, True)
    assert vote(fight, "another").status_code == 409
    assert fight.judgements() == []


def test_an_answer_that_breaks_off_is_said(fight):
    battle = begin(fight, "break")
    assert "error" in answer(fight, battle, 0)[-1]
    assert vote(fight, battle).status_code == 409


def test_equal_answers_cannot_be_judged(tmp_path):
    page = Page(tmp_path)
    with running(lambda _: endpoint(same, policies("a", "b"), NUMERICS)) as url, \
         served(page.store, arena=Arena(page.store, f"{url}/v1")) as at, client(at) as page.http:  # fmt: skip
        battle = begin(page)
        for side in (0, 1):
            answer(page, battle, side)
        assert "two different answers" in vote(page, battle).json()["message"]


@pytest.mark.parametrize(("names", "why"), [(("a",), "offers 1 policies; expected two or more"), ((), "offers 0")])
def test_too_few_policies_are_said(tmp_path, names, why):
    page = Page(tmp_path)
    with running(lambda _: endpoint(speak, policies(*names), NUMERICS)) as url, \
         served(page.store, arena=Arena(page.store, f"{url}/v1")) as at, client(at) as http:  # fmt: skip
        refused = http.post("/api/arena/begin", json={"prompt": "hi"})
        assert (refused.status_code, why in refused.json()["detail"]) == (503, True)


def test_an_endpoint_that_is_gone_is_said(tmp_path):
    page = Page(tmp_path)
    with served(page.store, arena=Arena(page.store, "http://127.0.0.1:9/v1")) as at, client(at) as http:
        refused = http.post("/api/arena/begin", json={"prompt": "hi"})
        assert (refused.status_code, "start one: `workbench serve`" in refused.json()["detail"]) == (503, True)
