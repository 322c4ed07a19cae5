"""What was said of answers of policies: one row per judgement, for win rates and rankings."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Text, cast, exists, select

from preference_data import schema
from preference_data.database import reading
from preference_data.machines import is_machine
from preference_data.records import Comparison, Completion, Judgement, Pairwise, Sampled, Verdict
from preference_data.store import Store
from preference_data.votes import SET_ASIDE

AT_ONCE = 2000
_MARKUP = re.compile(r"^#{1,6} |^\s*(?:[-*+]|\d+\.) |\*\*[^*]+\*\*", re.MULTILINE)
_SIDES = {Verdict.FIRST: 1, Verdict.SECOND: -1, Verdict.TIE: 0, Verdict.NEITHER: 0}
_UNSAID = 2
"""Strength of a preference where nobody said it."""


class Battle(NamedTuple):
    """One judgement of two policies' answers to a prompt.

    Attributes:
        prompt: its key; judgements of one prompt are not independent.
        first, second: digests of the policies.
        score: 1 where the first was better, 0 the second, 0.5 neither.
        longer: characters of the first answer beyond those of the second.
        marked: headings, list items and bold passages of the first beyond those of the second.
        machine: whether a machine said so, and no person.
    """

    prompt: str
    first: str
    second: str
    score: float
    longer: int
    marked: int
    machine: bool


class Fought(NamedTuple):
    """A judgement with what it is about.

    Attributes:
        policies: digests of who gave the first answer and the second.
        lead: of the first answer: 3 where it is much better, 0 where neither is better, -3 where the second is much better.
    """

    comparison: Comparison
    judgement: Judgement
    policies: tuple[str, str]
    lead: int


def battles(store: Store) -> Iterator[Battle]:
    """Every standing pairwise judgement of answers that two different policies gave here, but for those set aside."""
    for comparison, said, (first, second), lead in fought(store):
        texts = [each.text for each in comparison.completions]
        score = 0.5 + 0.5 * ((lead > 0) - (lead < 0))
        yield Battle(comparison.prompt.key, first, second, score, len(texts[0]) - len(texts[1]),
                     _marks(texts[0]) - _marks(texts[1]), is_machine(said.annotator))  # fmt: skip


def fought(store: Store) -> Iterator[Fought]:
    """The same with the texts, and all that was said of them."""
    completion, judgement = schema.completion.c, schema.judgement.c
    wanted = (
        select(completion.comparison)
        .where(
            cast(completion.origin, Text).like('%"sampled"%'),
            exists().where(judgement.comparison == completion.comparison),
        )
        .distinct()
        .order_by(completion.comparison)
    )
    with reading(store.engine) as connection:
        numbers = list(connection.execute(wanted).scalars())
    upto = store.watermark().seq
    for start in range(0, len(numbers), AT_ONCE):
        for comparison, given in store.entries_of(numbers[start : start + AT_ONCE], upto):
            policies = [_policy(each) for each in comparison.completions]
            if len(policies) == 2 and all(policies) and policies[0] != policies[1]:
                for said in given:
                    lead = _lead(said)
                    if lead is not None:
                        yield Fought(comparison, said, (policies[0], policies[1]), lead)


def _lead(said: Judgement) -> int | None:
    """By how much the first answer leads; None where that was not said, or the judgement is set aside."""
    if SET_ASIDE & set(said.flags) or not isinstance(said.opinion, Pairwise) or said.opinion.verdict not in _SIDES:
        return None
    return _SIDES[said.opinion.verdict] * (said.opinion.strength or _UNSAID)


def _policy(completion: Completion) -> str:
    return completion.origin.policy if isinstance(completion.origin, Sampled) else ""


def _marks(text: str) -> int:
    return len(_MARKUP.findall(text))
