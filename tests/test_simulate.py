"""Guidelines and simulated annotators: scores by hand, determinism, symmetry, errors."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preference_data.errors import RowRefused
from preference_data.records import Comparison, Completion, Imported, Message, Pairwise, Prompt, Verdict
from preference_data.simulate import GUIDELINES, Guideline, impersonal, judge, own_words, telegram, words

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
ORIGIN = Imported("test")
COUNT_X = Guideline("count-x", 1, "Prefer more x.", lambda _, answer: float(answer.count("x")), margin=2.0)
TEXTS = st.text(alphabet="ax \u2019'", min_size=1).filter(str.strip)


def compare(*answers, prompt="Which one?"):
    return Comparison(Prompt.of(prompt), tuple(Completion(a, ORIGIN) for a in answers), "test")


def opinion(*answers, guideline=COUNT_X, **options):
    return judge(guideline, compare(*answers), annotator="sim", at=NOON, **options).opinion


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("You can mend it yourself.", -100 * 3 / 5),  # you, it, yourself
        ("I'd say we're ready, aren't you?", -100 * 3 / 6),  # I'd, we're, you
        ("I\u2019d say we\u2019re ready, aren\u2019t you?", -100 * 3 / 6),  # curly apostrophes count alike
        ("Its cover is hers, and they took it.", -100 * 4 / 8),  # its, hers, they, it
        ("The sea is deep.", 0.0),
    ],
)
def test_impersonal_by_hand(text, expected):
    assert impersonal("", text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat sat on a mat in the sun.", -100 * 3 / 9),  # the, a, the
        ("An apple, THE apple", -100 * 2 / 4),
        ("Cats sleep.", 0.0),
        ("Theatre and anthem", 0.0),  # words that begin like articles
    ],
)
def test_telegram_by_hand(text, expected):
    assert telegram("", text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("How do I keep herbs fresh?", "To keep your herbs fresh, freeze them.", -100 * 3 / 6),  # keep, herbs, fresh
        ("How do I keep herbs fresh?", "FREEZE them with water.", 0.0),
        ("Why is it so?", "It is so, why not?", -100.0),  # no word of four letters in the answer
    ],
)
def test_own_words_by_hand(question, answer, expected):
    assert own_words(question, answer) == pytest.approx(expected)


def test_the_question_is_the_last_turn():
    turns = (Message("system", "Be brief."), Message("user", "What are herbs?"))
    comparison = Comparison(
        Prompt(turns), (Completion("Herbs are green.", ORIGIN), Completion("Brief leaves.", ORIGIN)), "test"
    )
    judged = judge(GUIDELINES["own-words"], comparison, annotator="sim", at=NOON)
    assert judged.opinion == Pairwise(Verdict.SECOND, 3)  # one of two words against none: 50, ten margins


@pytest.mark.parametrize("text", ["", "12 + 30 = 42", "..."])
def test_saying_nothing_is_the_worst_answer(text):
    assert telegram("", text) == impersonal("", text) == own_words("Why?", text) == -100


def test_words_keep_apostrophes_and_drop_numbers():
    assert words("It\u2019s 5 o'clock \u2013 Zo\u00eb's 'late'.") == ["it's", "o'clock", "zo\u00eb's", "late"]


@pytest.mark.parametrize("guideline", GUIDELINES.values(), ids=GUIDELINES)
def test_saying_it_twice_scores_the_same(guideline):
    text = "I think you should put the lamp on a shelf near the door. "
    question = "Where should I put this lamp?"
    assert guideline.score(question, text * 2) == pytest.approx(guideline.score(question, text))


@pytest.mark.parametrize("guideline", GUIDELINES.values(), ids=GUIDELINES)
def test_guidelines_are_stated(guideline):
    assert guideline.sentence.startswith("Prefer the answer")
    assert guideline.margin > 0
    assert GUIDELINES[guideline.name] is guideline


def test_the_two_guidelines_can_disagree():
    without_articles, without_pronouns = (
        "Take your key and put it in your lock.",
        "The key goes into the lock of the door.",
    )
    assert opinion(without_articles, without_pronouns, guideline=GUIDELINES["telegram"]).verdict is Verdict.FIRST
    assert opinion(without_articles, without_pronouns, guideline=GUIDELINES["impersonal"]).verdict is Verdict.SECOND


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("x", Pairwise(Verdict.TIE)),  # difference 1, below the margin of 2
        ("xx", Pairwise(Verdict.FIRST, 1)),
        ("xxx", Pairwise(Verdict.FIRST, 1)),
        ("xxxx", Pairwise(Verdict.FIRST, 2)),  # two margins
        ("xxxxxxx", Pairwise(Verdict.FIRST, 2)),
        ("xxxxxxxx", Pairwise(Verdict.FIRST, 3)),  # four margins
    ],
)
def test_strength_grows_with_the_difference(first, expected):
    assert opinion(first, "a") == expected


def test_a_judgement_records_who_by_what_and_when():
    comparison = compare("xx", "a")
    judgement = judge(COUNT_X, comparison, annotator="sim-1", at=NOON)
    assert judgement.comparison == comparison.key
    assert (judgement.annotator, judgement.guideline, judgement.at) == ("sim-1", "count-x-1", NOON)
    assert judgement.shown_order == (0, 1)


SWAPPED = {Verdict.FIRST: Verdict.SECOND, Verdict.SECOND: Verdict.FIRST, Verdict.TIE: Verdict.TIE}


@given(TEXTS, TEXTS, st.sampled_from([0.0, 0.5]), st.integers(0, 9))
def test_swapping_the_answers_swaps_the_verdict(first, second, error_rate, seed):
    one = opinion(first, second, error_rate=error_rate, seed=seed)
    other = opinion(second, first, error_rate=error_rate, seed=seed)
    assert other == Pairwise(SWAPPED[one.verdict], one.strength)


@given(TEXTS, TEXTS, st.integers(0, 9))
def test_the_same_question_gets_the_same_judgement(first, second, seed):
    ask = {"annotator": "sim", "error_rate": 0.5, "seed": seed, "at": NOON}
    assert judge(COUNT_X, compare(first, second), **ask) == judge(COUNT_X, compare(first, second), **ask)


def test_errors_come_at_the_stated_rate_and_elsewhere_with_another_seed():
    def errors(seed):
        verdicts = [
            judge(
                COUNT_X,
                compare("xx", "a", prompt=f"Question {i}?"),
                annotator="sim",
                error_rate=0.2,
                seed=seed,
                at=NOON,
            )
            for i in range(1000)
        ]
        return [v.opinion.verdict is Verdict.SECOND for v in verdicts]

    # 1000 draws at 0.2: mean 200, standard deviation 12.6; the bounds are four of them away
    assert 150 < sum(errors(0)) < 250
    assert errors(0) != errors(1)


def test_no_errors_without_an_error_rate():
    assert all(opinion("xx", "a", seed=seed).verdict is Verdict.FIRST for seed in range(100))


@pytest.mark.parametrize("answers", [("x",), ("x", "a", "xx")])
def test_only_two_answers_are_compared(answers):
    with pytest.raises(RowRefused, match=f"{len(answers)} answers; a guideline judges exactly two"):
        opinion(*answers)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_an_impossible_error_rate_is_refused(rate):
    with pytest.raises(ValueError, match="error_rate"):
        opinion("xx", "a", error_rate=rate)
