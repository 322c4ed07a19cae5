"""The compare page: what people preferred of two policies' answers, and the file for LLM Comparator."""

import pytest

from preference_data.records import Comparison, Completion, Judgement, Pairwise, Prompt, Sampled, Thumb, Verdict, now
from preference_data.store import Entry
from tests import drift_kit
from tests.drift_kit import LATER, PLAIN, items

world, web = drift_kit.world, drift_kit.web


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


def test_the_file_for_llm_comparator_says_what_people_said_of_answers(web, world):
    wanted = both(world) | {"suite": f"samples/{LATER}"}
    first, second = both(world).values()
    for policy, word in ((world.first, "short"), (world.second, "long")):
        details = [{"prompt": f"user: question {k}", "answer": f"{word} answer {k}"} for k in range(2)]
        world.record(policy, items(wanted["suite"], "tokens", [3, 3], details=details))
    assert "/compare/comparator.json?" in web.get("/compare", params=wanted).text
    answers = web.get("/compare/comparator.json", params=wanted).json()["examples"]
    assert [(one["score"], one["individual_rater_scores"]) for one in answers] == [(None, [])] * 2
    alike, other = comparison(0, second, first, texts=("long answer 0", "short answer 0")), comparison(1, first, second)
    world.ws.store.add([
        # The second policy stands first here: it is much better (-1.5), and once neither is.
        Entry(alike, (Judgement(alike.key, "ann", Pairwise(Verdict.FIRST, 3), at=now(), rationale="shorter"),
                      Judgement(alike.key, "bo", Pairwise(Verdict.TIE), at=now(), shown_order=(0, 1)),
                      Judgement(alike.key, "ai:judge", Pairwise(Verdict.SECOND, 3), at=now()))),
        Entry(other, (Judgement(other.key, "ann", Pairwise(Verdict.FIRST), at=now(), shown_order=(1, 0)),
                      Judgement(other.key, "bo", Pairwise(Verdict.SECOND, 1), at=now(), flags=("repeat",)))),
    ])  # fmt: skip
    file = web.get("/compare/comparator.json", params=wanted).json()
    assert [model["name"] for model in file["models"]] == ["round-1", "round-2"]
    judged = [one for one in file["examples"] if one["score"] is not None]
    assert (len(file["examples"]), judged) == (3, [file["examples"][0], file["examples"][2]])
    assert [judged[0][f"output_text_{side}"] for side in "ab"] == ["short answer 0", "long answer 0"]
    assert judged[0]["score"] == -0.75  # of -1.5 and 0
    ratings = sorted(judged[0]["individual_rater_scores"], key=lambda each: each["score"])
    assert ratings == [{"score": -1.5, "is_flipped": False, "rationale": "shorter"},
                       {"score": 0, "is_flipped": True, "rationale": ""}]  # fmt: skip
    assert judged[1] == {
        "input_text": "user: question 1", "tags": [], "output_text_a": "answer 0 to 1", "output_text_b": "answer 1 to 1",
        "score": 1, "individual_rater_scores": [{"score": 1, "is_flipped": True, "rationale": ""}],
        "custom_fields": {"tokens": [None, None]},
    }  # fmt: skip


def test_pairs_and_probes_are_no_answers_for_llm_comparator(web, world):
    for suite in (f"retention/{PLAIN}", "refusal"):
        asked = both(world) | {"suite": suite}
        assert "comparator.json" not in web.get("/compare", params=asked).text
        assert web.get("/compare/comparator.json", params=asked).status_code == 404
