"""Suites on a tiny model: what is measured, item by item."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from preference_data.samples import ChoiceItem, choice_items
from preference_data.simulate import GUIDELINES
from tests.rounds_kit import settings, two_versions
from tests.tiny_model import build_tiny_model
from workbench.config import EvaluationSettings
from workbench.errors import ConfigError
from workbench.evaluation.choice import choice, chosen
from workbench.evaluation.context import Context
from workbench.evaluation.evaluate import suite_named
from workbench.evaluation.retention import answer_slice, retention
from workbench.evaluation.samples import refusal, samples
from workbench.evaluation.text import reference_text, text
from workbench.models.load import Family, load_tokenizer
from workbench.models.score_table import PairScore
from workbench.models.tokens import Encoded, beginning, encode_text, prompt_ids
from workbench.rounds.plan import measuring_condition, plan_as_json
from workbench.tasks import PolicyRef


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A workspace after one round, so that there are two policies."""
    root = tmp_path_factory.mktemp("evaluation")
    ws = two_versions(root / "ws", build_tiny_model(root / "model"))
    child = ws.round(ws.plan(settings(version="polite", training={"learning_rate": 5e-2}))).run(where="here").child
    return ws, ws.registry.ref(child), ws.registry.ref(ws.registry.resolve("base"))


def context(policy, **changes):
    chosen = EvaluationSettings(samples=5, max_new_tokens=6, **changes)
    return Context(Family(policy), policy, chosen, lambda done, total: None)


def test_text_is_at_least_50_kb_and_bits_are_those_of_the_model(world):
    _, _, base = world
    assert sum(len(c.encode()) for c in reference_text()) >= 50_000
    here = context(base)
    items = list(text(here))
    bits = {i.item: i.value for i in items if i.metric == "bits"}
    chunk = reference_text()[3]
    ids = torch.tensor([here.family.tokenizer(chunk, add_special_tokens=False)["input_ids"]])
    with here.family.using(base) as model:
        nats = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="sum")
    assert bits["0003"] == pytest.approx(float(nats) / math.log(2), rel=1e-4)
    assert {i.metric: i.value for i in items if i.item == "0003"}["bytes"] == len(chunk.encode())


class Beginning:
    """A tokenizer of letters that puts a token before what it is given, unless it is told not to."""

    bos_token_id = 7

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [*([7] if add_special_tokens else []), *map(ord, text)]}


def test_plain_texts_begin_as_the_tokenizer_begins_them():
    assert encode_text(Beginning(), "ab", "c") == Encoded((7, ord("a"), ord("b")), (ord("c"),))
    assert encode_text(Beginning(), "", "c") == Encoded((7,), (ord("c"),))
    none = Beginning()
    none.bos_token_id = None
    assert beginning(none) == []


def test_choice_has_300_items_and_takes_the_likeliest_option(world):
    _, _, base = world
    items = {i.item: i for i in choice(context(base))}
    assert len(items) == len(choice_items()) >= 300
    question = choice_items()[7]
    here = context(base)
    scores = []
    for option in question.options:
        ids = here.family.tokenizer(f"{question.question} {option}", add_special_tokens=False)["input_ids"]
        start = len(here.family.tokenizer(question.question, add_special_tokens=False)["input_ids"])
        with here.family.using(base) as model:
            log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        scores.append(sum(float(log_probs[t - 1, ids[t]]) for t in range(start, len(ids))))
    best = max(range(4), key=scores.__getitem__)
    assert items[question.key].value == float(best == question.answer)
    assert items[question.key].detail["chose"] == question.options[best]


def test_samples_measure_kl_to_other_policies_on_the_policys_own_answers(world):
    ws, child, base = world
    version = ws.version("polite")
    found = list(samples(context(child), version, {base.digest: base, child.digest: child}))
    metrics = {i.metric for i in found}
    ways = {f"{way}/{policy.digest}" for way in ("kl", "kl_back") for policy in (base, child)}
    assert metrics == {"tokens", "finished", "refused", *ways}
    own = [i.value for i in found if i.metric == f"kl/{child.digest}"]
    other = [i.value for i in found if i.metric == f"kl/{base.digest}"]
    assert own == pytest.approx([0.0] * 5, abs=1e-4)
    assert min(other) > 1e-3
    texts = [i.detail["answer"] for i in found if i.metric == "tokens"]
    assert len(texts) == 5
    test_prompts = {p.prompt.key for p in version.pairs("test")}
    assert {i.item for i in found} <= test_prompts


def test_prompts_that_leave_no_room_for_an_answer_are_passed_over(world, tmp_path):
    """Learned positions end: one token further there is nothing to look up."""
    version = world[0].version("polite")
    folder = build_tiny_model(tmp_path / "model")
    tokenizer = load_tokenizer(str(folder))
    lengths = {p.prompt.key: len(prompt_ids(tokenizer, p.prompt)) for p in version.pairs("test")}
    most = sorted(lengths.values())[len(lengths) // 2]
    # an answer has six tokens: the longest prompt that is answered ends where they begin
    shape = GPT2Config(
        vocab_size=len(tokenizer), n_positions=most + 6, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2
    )
    GPT2LMHeadModel(shape).save_pretrained(folder)
    policy = PolicyRef("g" * 64, "full", str(folder), "g" * 64, str(folder), "tok")
    here = context(policy)
    asked = {i.item for i in samples(here, version, {})}
    fit = sorted(key for key, length in lengths.items() if length <= most)
    assert len(fit) < len(lengths)
    assert asked == set(fit[:5])
    with here.family.using(policy) as model:
        model.config.n_positions = 6
    assert list(samples(here, version, {})) == list(refusal(here)) == []


def test_a_length_beyond_the_positions_of_the_base_is_refused_when_planned(world):
    assert world[0].plan(settings(version="polite", training={"max_length": 512})).training.max_length == 512
    with pytest.raises(ConfigError, match=r"max_length = 513, but base \S+ reads at most 512 tokens .* = 512 or less"):
        world[0].plan(settings(version="polite", training={"max_length": 513}))


def test_samples_score_compliance_with_every_guideline_asked_for(world):
    ws, child, _ = world
    names = tuple(GUIDELINES)
    found = list(samples(context(child, guidelines=names), ws.version("polite"), {}))
    texts = {i.item: i.detail["answer"] for i in found if i.metric == "tokens"}
    questions = {p.prompt.key: p.prompt.messages[-1].content for p in ws.version("polite").pairs("test")}
    for name in names:
        for item in (i for i in found if i.metric == f"compliance/{name}"):
            assert item.value == GUIDELINES[name].score(questions[item.item], texts[item.item])


def test_retention_by_hand(world):
    version = world[0].version("polite")
    pair = version.pairs("test")[0]
    # -6 over 3 tokens against -10 over 4: margin 4, per token -2 - (-2.5) = 0.5
    found = {i.metric: i for i in retention(version, {pair.key: PairScore(-6.0, -10.0, 3, 4)})}
    assert {name: i.value for name, i in found.items()} == {"margin": 4.0, "margin_per_token": 0.5, "logp_chosen": -6.0}
    assert found["margin"].item == pair.key


@pytest.mark.parametrize(("answer", "expected"), [(" Yes", "Yes"), ("No", "No"), ("a longer answer", "long")])
def test_short_answers_are_a_slice_of_their_own(answer, expected):
    assert answer_slice(answer) == expected


def test_an_unknown_suite_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match="unknown suite 'chess'; known suites: choice, text, refusal"):
        suite_named("chess")


def test_an_unknown_guideline_is_refused_before_anything_is_loaded(world):
    with pytest.raises(ConfigError, match="unknown guideline 'kind'; known guidelines"):
        world[0].plan(settings(evaluation={"guidelines": ["kind"]}))


def test_items_hold_no_number_that_json_has_no_word_for(world):
    ws, child, _ = world
    rows = [
        i for m in ws.ledger.suites(child.digest) for i in ws.ledger.items(child.digest, m.suite, m.metric, m.numerics)
    ]
    assert rows
    json.dumps([r._asdict() for r in rows], allow_nan=False)
    assert Path(child.path).exists()


def written(folder, rows):
    path = folder / "colours.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


COLOURS = [{"question": f"Colour of {thing}:", "options": ["red", "green", "blue"], "answer": i % 3, "domain": "colour"}
           for i, thing in enumerate(["grass", "sky", "blood", "leaf", "sea", "rose", "ink", "sun"])]  # fmt: skip


def test_questions_of_a_file_are_a_suite_named_after_it_and_its_hash(world, tmp_path):
    ws, child, _ = world
    path = written(tmp_path, COLOURS)
    asked = settings(version="polite", parent="base", evaluation={"suites": [f"file:{path}"]})
    found = ws.evaluate(child.digest, asked)
    (label,) = (suite for suite in found if suite.startswith("colours/"))
    assert found[label]["correct"].n == 8
    plan = ws.plan(asked)
    assert plan_as_json(plan)["evaluation"]["suites"] == [label]
    items = ws.ledger.items(child.digest, label, "correct", measuring_condition(plan))
    own = [ChoiceItem(row["question"], tuple(row["options"]), row["answer"], row["domain"]) for row in COLOURS]
    here = context(child)
    assert {i.item: i.value for i in items} == {i.item: i.value for i in chosen(here, label, own)}
    written(tmp_path, COLOURS[1:])
    with pytest.raises(ConfigError, match="changed since the round was planned"):
        suite_named(plan.evaluation.suites[0])
    assert ws.plan(asked).evaluation.suites != plan.evaluation.suites


@pytest.mark.parametrize(
    ("row", "says"),
    [("{", "line 2"), ('{"question": "a", "options": ["b"], "answer": 3}', "line 2"), ('{"question": "a"}', "options")],
)
def test_a_line_that_is_no_question_is_told(world, tmp_path, row, says):
    path = written(tmp_path, COLOURS[:1])
    path.write_text(path.read_text() + row + "\n", encoding="utf-8")
    plan = world[0].plan(settings(version="polite", parent="base", evaluation={"suites": [f"file:{path}"]}))
    with pytest.raises(ConfigError, match=says):
        suite_named(plan.evaluation.suites[0])


def test_a_missing_file_of_questions_is_told_when_planned(world, tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        world[0].plan(settings(version="polite", evaluation={"suites": [f"file:{tmp_path}/none.jsonl"]}))
