"""The compare page: what people preferred of two policies' answers, and the file for LLM Comparator."""

import pytest

from preference_data.records import Comparison, Completion, Judgement, Pairwise, Prompt, Sampled, Thumb, Verdict, now
from preference_data.store import Entry
from tests.drift_kit import World, two_rounds_in
from tests.page_kit import client
from tests.test_drift_page import drift_served


@pytest.fixture
def world(tmp_path):
    return two_rounds_in(World(tmp_path))


@pytest.fixture
def web(world):
    with drift_served(world.ws) as url, client(url) as found:
        yield found


def both(world):
    return {"first": world.first.digest, "second": world.second.digest}


def comparison(number, *policies, texts=("", "")):
    made = [
        Completion(text or f"answer {k} to {number}", Sampled(policy, 1.0, 1.0, 8, k))
        for k, (policy, text) in enumerate(zip(policies, texts, strict=False))
    ]
    return Comparison(Prompt.of(f"question {number}"), tuple(made), "made", {})


def judged(world, numbers, verdict, *, by="ann", flags=()):
    """The two policies' answers to some questions, judged alike."""
    asked = [comparison(number, *both(world).values()) for number in numbers]
    world.ws.store.add(Entry(c, (Judgement(c.key, by, Pairwise(verdict), at=now(), flags=flags),)) for c in asked)


@pytest.mark.parametrize("machine", ["ai:judge", "rule:short", "reward:dora", "simulated:polite"])
def test_what_machines_said_and_what_is_set_aside_is_no_preference_of_people(web, world, machine):
    judged(world, range(6), Verdict.FIRST)
    judged(world, range(3), Verdict.SECOND, by="bo")
    judged(world, range(40), Verdict.SECOND, by=machine)
    for flag in ("late", "repeat", "trial"):
        judged(world, range(5), Verdict.SECOND, by="cleo", flags=(flag,))
    page = web.get("/compare", params=both(world)).text
    assert "0.67 [" in page  # 6 of 9
    assert "n=9; judgements of machines, not counted: 40" in page
    assert "Bradley-Terry over 9 judgements of people" in page
    assert "Judgements of machines, not counted: 40." in page


def test_where_only_machines_judged_the_page_says_so(web, world):
    judged(world, range(7), Verdict.FIRST, by="ai:judge")
    page = web.get("/compare", params=both(world)).text
    assert "No person judged the two; judgements of machines, not counted: 7" in page
    assert "Only machines have judged answers of two policies (7 judgements), no person yet" in page
    assert "Bradley-Terry" not in page


def test_a_thumb_on_a_single_answer_is_no_battle(web, world):
    judged(world, range(5), Verdict.FIRST)
    alone = comparison(9, world.first.digest)
    world.ws.store.add([Entry(alone, (Judgement(alone.key, "ann", Thumb(True), at=now()),))])
    assert "Bradley-Terry over 5 judgements" in web.get("/compare", params=both(world)).text
