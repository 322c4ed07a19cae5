"""Machines that judge: language models in both orders, rewards, and whether people bear them out."""

import json
from dataclasses import replace

import httpx
import pytest

from preference_data.records import Comparison, Completion, Imported, Judgement, Message, Pairwise, Prompt, Verdict, now
from preference_data.simulate import GUIDELINES, Guideline
from preference_data.store import Entry, Store
from workbench.ai_judge import ai_judge, endpoint
from workbench.config import JudgeSettings, LoopSettings
from workbench.errors import ConfigError, JudgeError
from workbench.judging import agreement_with_people, judge_named, machines_of, require_trust

FIRST, SECOND, TIE = Verdict.FIRST, Verdict.SECOND, Verdict.TIE


def comparison(first="short", second="a much longer answer", question="what?"):
    return Comparison(
        Prompt.of(question), (Completion(first, Imported("x")), Completion(second, Imported("x"))), "x", {}
    )


def answering(*texts):
    """A model that gives these answers in turn, and keeps what it was asked."""
    asked = []

    def ask(prompts):
        asked.extend(p.messages[-1].content for p in prompts)
        return [texts[k % len(texts)] for k in range(len(prompts))]

    return ask, asked


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        (("A", "B"), FIRST),  # the first answer is A, then B
        (("B", "A"), SECOND),
        (("A", "A"), TIE),  # whatever stands first: no opinion
        (("B", "B"), TIE),
        (("tie", "tie"), TIE),
        (("A", "tie"), TIE),
        (("**A**", "Answer B."), FIRST),
        (("A\nbecause it helps", "b"), FIRST),
    ],
)
def test_both_orders_must_agree(answers, verdict):
    ask, asked = answering(*answers)
    (found,) = ai_judge("ai:m", ask, guideline="Be brief.")([comparison()])
    assert found.opinion.verdict == verdict
    assert found.annotator == "ai:m"
    assert [text.index("short") < text.index("a much longer") for text in asked] == [True, False]
    assert all(text.startswith("Be brief.") for text in asked)


def test_a_receipt_is_in_the_prompt_and_overrides_are_written_down():
    ask, asked = answering("B", "A")
    judge = ai_judge("ai:m", ask, guideline="", receipts=lambda said: [-float(len(one.text)) for one in said])
    (found,) = judge([comparison()])
    # The reward prefers the shorter, first answer: A in the first order, B in the other.
    assert "prefers A with confidence 1.00" in asked[0]
    assert "prefers B with confidence 1.00" in asked[1]
    assert found.opinion.verdict == SECOND
    assert found.extra["receipt"] == {"verdict": "first", "confidence": 1.0}
    assert found.extra["overridden"] is True
    agreeing = ai_judge("ai:m", answering("A", "B")[0], guideline="", receipts=lambda said: [1.0, 0.0])
    assert agreeing([comparison()])[0].extra["overridden"] is False


def test_two_answers_of_the_same_reward_give_no_receipt():
    ask, asked = answering("A", "B")
    (found,) = ai_judge("ai:m", ask, guideline="", receipts=lambda said: [1.0] * len(said))([comparison()])
    assert not any("smaller model" in text for text in asked)
    assert "receipt" not in found.extra
    assert "overridden" not in found.extra


def test_the_whole_conversation_is_judged():
    ask, asked = answering("A", "B")
    turns = (Message("system", "Be kind."), Message("user", "Plan a trip."), Message("assistant", "To Rome."),
             Message("user", "Cheaper."))  # fmt: skip
    ai_judge("ai:m", ask, guideline="")([replace(comparison(), prompt=Prompt(turns))])
    assert "system: Be kind.\n\nuser: Plan a trip.\n\nassistant: To Rome.\n\nuser: Cheaper." in asked[0]


@pytest.mark.parametrize("text", ["", "I cannot say", "A or B", "a better answer would be B", "AB"])
def test_a_judge_that_talks_nonsense_is_refused(text):
    ask, _ = answering(text)
    with pytest.raises(JudgeError, match="2 of 2 answers name neither A, B nor tie"):
        ai_judge("ai:m", ask, guideline="")([comparison()])


def test_now_and_then_nonsense_is_a_tie():
    ask, _ = answering("A", "B", "A", "hm")
    found = ai_judge("ai:m", ask, guideline="")([comparison(), comparison(question="else?")])
    assert [one.opinion.verdict for one in found] == [FIRST, TIE]
    assert found[1].extra["orders"] == ["first", "none"]


def served(monkeypatch, handler):
    monkeypatch.setattr(httpx, "post", httpx.Client(transport=httpx.MockTransport(handler)).post)


def test_an_endpoint_is_asked_as_openai_would_be(monkeypatch):
    asked = []

    def handler(request):
        asked.append((request.url.path, json.loads(request.content)))
        return httpx.Response(200, json={"choices": [{"message": {"content": "A"}}]})

    served(monkeypatch, handler)
    assert endpoint("http://127.0.0.1:9/v1/", "big")([Prompt.of("which?")]) == ["A"]
    path, body = asked[0]
    assert path == "/v1/chat/completions"
    assert (body["model"], body["temperature"], body["messages"][0]["content"]) == ("big", 0, "which?")


def test_an_endpoint_that_is_down_is_tried_three_times(monkeypatch):
    waits = []

    def handler(_):
        raise httpx.ConnectError("refused")

    served(monkeypatch, handler)
    with pytest.raises(
        JudgeError, match="3 tries failed, the last with ConnectError: refused; judgements given before are kept"
    ):
        endpoint("http://127.0.0.1:9/v1", "big", sleep=waits.append)([Prompt.of("x")])
    assert waits == [2.0, 4.0]


@pytest.mark.parametrize("body", ["nonsense", "{}", '{"choices": []}'])
def test_an_endpoint_that_answers_nonsense_is_told(monkeypatch, body):
    served(monkeypatch, lambda _: httpx.Response(200, text=body))
    with pytest.raises(JudgeError, match="no chat completion came back"):
        endpoint("http://127.0.0.1:9/v1", "big")([Prompt.of("x")])


def test_a_reward_judges(monkeypatch):
    monkeypatch.setitem(GUIDELINES, "short", Guideline("short", 1, "s", lambda _, a: -len(a), margin=1))
    judge = judge_named(JudgeSettings(by="reward:rule:short"))
    found = judge([comparison(), comparison("longer one", "tiny"), comparison("same", "size")])
    assert [one.opinion.verdict for one in found] == [FIRST, SECOND, TIE]
    assert {one.annotator for one in found} == {"reward:rule:short"}


@pytest.mark.parametrize(
    ("by", "words"), [("reward:gut", "expected rule:GUIDELINE"), ("rule:haiku", "known guidelines")]
)
def test_unknown_judges_say_what_is_expected(by, words):
    with pytest.raises(ConfigError, match=words):
        judge_named(JudgeSettings(by=by))


def test_a_reward_model_of_an_earlier_turn_is_looked_for_when_it_judges():
    known = {"july": lambda said: [0.0] * len(said)}

    def models(name):
        if name not in known:
            raise ConfigError(f"no reward model {name}")
        return known[name]

    def machines(*judges, reward_model=None):
        return machines_of(
            LoopSettings(name="weekly", prompts="p.txt", judges=judges, reward_model=reward_model), models
        )

    receipt = {"by": "ai:http://127.0.0.1:9#m", "receipt": "model:weekly-2"}
    found = machines("people", "reward:model:weekly-1", receipt, "reward:model:july", reward_model={})
    assert [one.by for one in found] == ["reward:model:weekly-1", receipt["by"], "reward:model:july"]
    known["weekly-1"] = lambda said: [float(len(one.text)) for one in said]
    later = found[JudgeSettings(by="reward:model:weekly-1")]
    assert [one.opinion.verdict for one in later([comparison()])] == [SECOND]
    del known["weekly-1"]  # it is made once
    assert [one.opinion.verdict for one in later([comparison("a much longer answer", "short")])] == [FIRST]
    for judges in (["reward:model:weekly-1"], ["people", "reward:model:weekly-2"], ["people", "reward:model:june"]):
        with pytest.raises(ConfigError, match="no reward model"):
            machines(*judges, reward_model={})
    with pytest.raises(ConfigError, match="no reward model weekly-1"):
        machines("people", "reward:model:weekly-1")  # the loop trains none


@pytest.fixture
def judged_by_people(tmp_path):
    """Forty comparisons on which a person prefers the first answer, and one that only a machine judged."""
    store = Store.open(f"sqlite:///{tmp_path / 'p.db'}")
    made = [comparison(question=f"question {k}?") for k in range(41)]
    for k, one in enumerate(made):
        who = "ann" if k < 40 else "rule:x"
        store.add([Entry(one, (Judgement(one.key, who, Pairwise(FIRST), now()),))])
    return store


def test_an_ai_may_label_once_people_bear_it_out(judged_by_people):
    settings = JudgeSettings(by="ai:http://127.0.0.1:9#m")
    agreeing = ai_judge("ai:m", answering("A", "B")[0], guideline="")
    found = agreement_with_people(judged_by_people, agreeing)
    assert (found.agrees.value, found.agrees.n, found.asked) == (1.0, 40, 40)
    assert found.overrides.value is None
    require_trust(judged_by_people, settings, agreeing)
    for answers in (("B", "A"), ("A", "A")):  # the opposite, and never sure
        with pytest.raises(JudgeError, match="expected a lower bound of 0.6"):
            require_trust(judged_by_people, settings, ai_judge("ai:m", answering(*answers)[0], guideline=""))
    require_trust(judged_by_people, settings.model_copy(update={"trust": 0.0}), agreeing)
    assert judged_by_people.counts()["judgements"] == 41  # trying it stored nothing


def test_where_it_decides_nothing_a_judge_is_half_right(judged_by_people):
    # Of four comparisons it decides one, as people do, and names whatever stands first on the others.
    seldom_sure = ai_judge("ai:m", answering("A", "B", *["A", "A"] * 3)[0], guideline="")
    found = agreement_with_people(judged_by_people, seldom_sure)
    assert (found.agrees.value, found.agrees.n) == ((10 + 30 / 2) / 40, 40)
    settings = JudgeSettings(by="ai:http://127.0.0.1:9#m")
    with pytest.raises(JudgeError, match=r"agrees with people on 0\.6[23] .* of 40 comparisons"):
        require_trust(judged_by_people, settings, seldom_sure)


def test_whether_overrides_are_right_is_told_by_people(judged_by_people):
    # The receipt prefers the shorter answer, which is the first, on every second question, and the second on the others.
    def receipts(said):
        return [float(("1" in one.prompt.text) == (len(one.text) > 10)) for one in said]

    judge = ai_judge("ai:m", answering("A", "B")[0], guideline="", receipts=receipts)  # always the first, as people do
    found = agreement_with_people(judged_by_people, judge)
    against = sum("1" in f"question {k}?" for k in range(40))
    assert (found.overrides.value, found.right.value, found.right.n) == (against / 40, 1.0, against)
    wrong = ai_judge("ai:m", answering("B", "A")[0], guideline="", receipts=receipts)
    assert agreement_with_people(judged_by_people, wrong).right.value == 0.0


def test_without_people_an_ai_may_not_label(tmp_path):
    store = Store.open(f"sqlite:///{tmp_path / 'p.db'}")
    judge = ai_judge("ai:m", answering("A", "B")[0], guideline="")
    with pytest.raises(JudgeError, match="have people judge some first"):
        require_trust(store, JudgeSettings(by="ai:http://127.0.0.1:9#m"), judge)


@pytest.mark.parametrize(
    "values", [{"by": "reward:model:latest"}, {"by": "ai:http://127.0.0.1:9#m", "receipt": "model:latest"}]
)
def test_a_judge_is_named_after_one_reward_model_not_after_whatever_is_newest(values):
    with pytest.raises(ValueError, match="the latest reward model changes"):
        JudgeSettings.model_validate(values)
