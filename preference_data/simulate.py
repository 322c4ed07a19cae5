"""Simulated annotators who follow a stated guideline that anybody can check.

A guideline is one sentence and one pure function of question and answer. The annotator prefers the answer with the
higher score and calls a tie where the scores are closer than the guideline's margin. Scores are rates, never counts,
so that a longer answer is not better for being longer.

All guidelines ask for less of something: of six tried, those that asked for more moved held-out accuracy least. A
likely reason is that a word an answer already has can become likelier by little only. Fewer punctuation marks were
learnt best, and are not here: of answers cut at the same number of tokens those with fewer marks are longer.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from preference_data.errors import RowRefused
from preference_data.records import Comparison, Judgement, Pairwise, Prompt, Verdict, digest

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
FIRST_AND_SECOND = "i me my mine myself we us our ours ourselves you your yours yourself yourselves"
THIRD = "he him his himself she her hers herself it its itself they them their theirs themselves"
PRONOUNS = frozenset(f"{FIRST_AND_SECOND} {THIRD}".split())
ARTICLES = frozenset(["a", "an", "the"])

TELLING = 4
"""Letters of the shortest word that says what a text is about."""

LONG = 8
"""Letters of the shortest word that is long."""

CLEARLY = 2.0
MUCH = 4.0
"""Differences of that many margins make a judgement's strength 2 and 3."""


@dataclass(frozen=True, slots=True)
class Guideline:
    """What a simulated annotator goes by.

    Attributes:
        version: raised whenever the scores of any answer or the margin change.
        sentence: the rule as an annotator would read it.
        score: of a question and an answer to it; higher is better; depends on the two texts alone.
        margin: least difference of scores that makes one answer better, above 0.
    """

    name: str
    version: int
    sentence: str
    score: Callable[[str, str], float]
    margin: float

    @property
    def label(self) -> str:
        """Name and version, as judgements record it."""
        return f"{self.name}-{self.version}"


def words(text: str) -> list[str]:
    """The words of a text in lower case; apostrophes inside a word belong to it, numbers do not count."""
    return WORD.findall(text.lower().replace("\u2019", "'"))


def share_of(text: str, kinds: frozenset[str]) -> float:
    """How many of 100 words are of some kind; a contraction counts as its first part (`you're` as `you`).

    Returns:
        Words per 100, from 0 to 100; 100 for a text without words, so that saying nothing never wins.
    """
    found = words(text)
    return 100 * sum(word.split("'")[0] in kinds for word in found) / len(found) if found else 100.0


def asked_in(prompt: Prompt) -> str:
    """The last turn of a conversation: what the answer answers."""
    return prompt.messages[-1].content


def telegram(_question: str, answer: str) -> float:
    """Articles per 100 words, negated: from -100 to 0."""
    return -share_of(answer, ARTICLES)


def impersonal(_question: str, answer: str) -> float:
    """Personal and possessive pronouns per 100 words, negated: from -100 to 0."""
    return -share_of(answer, PRONOUNS)


def own_words(question: str, answer: str) -> float:
    """How many of 100 words of four letters or more are the question's, negated: from -100 to 0.

    -100 for an answer without such words, so that saying nothing never wins.
    """
    asked = {word for word in words(question) if len(word) >= TELLING}
    said = [word for word in words(answer) if len(word) >= TELLING]
    return -100 * sum(word in asked for word in said) / len(said) if said else -100.0


def plain_words(_question: str, answer: str) -> float:
    """Words of eight letters or more per 100 words, negated: from -100 to 0; -100 for an answer without words."""
    found = words(answer)
    return -100 * sum(len(word) >= LONG for word in found) / len(found) if found else -100.0


GUIDELINES: dict[str, Guideline] = {
    g.name: g
    for g in (
        Guideline(
            "telegram",
            2,
            "Prefer the answer closer to telegram style: fewer articles (a, an, the) per 100 words.",
            telegram,
            margin=4.0,
        ),
        Guideline(
            "own-words",
            1,
            "Prefer the answer in its own words: of those of four letters or more, fewer that the question used.",
            own_words,
            margin=5.0,
        ),
        Guideline(
            "impersonal",
            2,
            "Prefer the answer that stays impersonal: fewer pronouns (I, you, we, it, they and their forms) "
            "per 100 words.",
            impersonal,
            margin=1.2,
        ),
        Guideline(
            "plain-words",
            1,
            "Prefer the answer in plain words: fewer words of eight letters or more per 100 words.",
            plain_words,
            margin=4.0,
        ),
    )
}


def judge(
    guideline: Guideline,
    comparison: Comparison,
    *,
    annotator: str,
    error_rate: float = 0.0,
    seed: int = 0,
    at: datetime,
) -> Judgement:
    """What a simulated annotator says about two answers.

    The same answers in the other order get the other verdict, errors included: whether an annotator errs depends on
    the prompt, the two texts, the guideline, the annotator and the seed, not on the order or on earlier judgements.

    Args:
        guideline: what the annotator goes by.
        comparison: a prompt with exactly two answers.
        annotator: handle the judgement is given under.
        error_rate: share of decided comparisons in which the worse answer is named, from 0 to below 1.
        seed: another seed errs elsewhere.
        at: when the judgement is given, UTC.

    Raises:
        RowRefused: the comparison does not have two answers.
        ValueError: the error rate is out of bounds.
    """
    if len(comparison.completions) != 2:
        raise RowRefused(f"comparison: {len(comparison.completions)} answers; a guideline judges exactly two")
    if not 0 <= error_rate < 1:
        raise ValueError(f"error_rate: got {error_rate}; expected 0 or more and less than 1")
    first, second = (completion.text for completion in comparison.completions)
    question = asked_in(comparison.prompt)
    difference = guideline.score(question, first) - guideline.score(question, second)
    content = [comparison.prompt.key, sorted((first, second)), guideline.label, annotator, seed]
    if _uniform(content) < error_rate:
        difference = -difference
    return Judgement(
        comparison=comparison.key,
        annotator=annotator,
        opinion=_opinion(difference, guideline.margin),
        at=at,
        shown_order=(0, 1),
        guideline=guideline.label,
    )


def _opinion(difference: float, margin: float) -> Pairwise:
    size = abs(difference) / margin
    if size < 1:
        return Pairwise(Verdict.TIE)
    strength = 1 if size < CLEARLY else 2 if size < MUCH else 3
    return Pairwise(Verdict.FIRST if difference > 0 else Verdict.SECOND, strength)


def _uniform(content: Sequence[object]) -> float:
    """A number in [0, 1) that depends on the content alone, on every machine."""
    return int(digest(content)[:13], 16) / 16**13
