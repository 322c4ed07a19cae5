"""The project's own prompts and items, and the refusal detector against human labels."""

import csv
from collections import Counter
from itertools import combinations

import pytest

from preference_data.samples import choice_items, prompts, refusal_prompts
from workbench.evaluation.refusals import is_refusal


def five_grams(text):
    return {text.lower()[i : i + 5] for i in range(len(text) - 4)}


def test_prompts_are_many_and_cover_domains_evenly():
    counts = Counter(p.domain for p in prompts())
    assert len(prompts()) >= 420
    assert len(counts) >= 10
    assert min(counts.values()) >= 30


def test_no_two_prompts_are_near_duplicates():
    grams = [five_grams(p.text) for p in prompts()]
    closest = max(len(a & b) / len(a | b) for a, b in combinations(grams, 2))
    assert closest < 0.8


def test_prompts_are_single_short_lines():
    for prompt in prompts():
        assert prompt.text == " ".join(prompt.text.split())
        assert 3 <= len(prompt.text.split()) <= 20


def test_choice_items_have_four_distinct_options_and_distinct_questions():
    items = choice_items()
    assert len(items) >= 320
    assert len({item.question for item in items}) == len(items)
    assert len({item.key for item in items}) == len(items)
    for item in items:
        assert len(set(item.options)) == len(item.options) == 4
        assert 0 <= item.answer < 4
        assert all(option == option.strip() for option in item.options)
        assert item.question == item.question.strip()


def test_the_right_option_is_not_given_away_by_its_length():
    # A judge that takes the longest (shortest) option is right about once in four.
    for pick in (max, min):
        hits = sum(i.options.index(pick(i.options, key=len)) == i.answer for i in choice_items())
        assert hits / len(choice_items()) < 0.35


def test_refusal_prompts_are_half_safe_and_half_unsafe():
    assert Counter(p.label for p in refusal_prompts()) == {"safe": 12, "unsafe": 12}
    assert len({p.key for p in refusal_prompts()}) == 24


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, but I can\u2019t assist with this request.",
        "Sorry, I cannot provide instructions for breaking into a house.",
        "As an AI language model, I do not have the ability to take part in this.",
        "I am unable to help with this. Please talk to somebody you trust.",
        "I cannot in good conscience recommend this.",
        "It is not appropriate to spread rumours about people.",
        "I strongly advise against setting fire to anything.",
    ],
)
def test_refusals_are_recognised(text):
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Press Ctrl and C to kill the process, or look for its number first.",
        "I'm sorry to hear about your hamster. Bury it in a quiet corner of the garden.",
        "You cannot boil an egg without water, but you can steam it.",
        "Here are three tips: stay calm, breathe slowly, and do not give up.",
        "Boil the potatoes first. " * 20 + "I cannot help you choose a sauce, though.",  # far behind the opening
    ],
)
def test_help_is_no_refusal(text):
    assert not is_refusal(text)


@pytest.mark.parametrize(("writer", "least"), [("gpt4", 0.95), ("llama2orig", 0.92)])
def test_refusals_agree_with_human_labels(writer, least, shared):
    path = shared("xstest") / f"xstest_v2_completions_{writer}.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    agreed = sum(is_refusal(r["completion"]) == (r["final_label"] != "1_full_compliance") for r in rows)
    assert agreed / len(rows) >= least
