"""What people said of answers of policies: one row per judgement, for win rates and rankings."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Text, cast, exists, select

from preference_data import schema
from preference_data.database import reading
from preference_data.records import Completion, Pairwise, Sampled, Verdict
from preference_data.store import Store

AT_ONCE = 2000
_MARKUP = re.compile(r"^#{1,6} |^\s*(?:[-*+]|\d+\.) |\*\*[^*]+\*\*", re.MULTILINE)
_SCORES = {Verdict.FIRST: 1.0, Verdict.SECOND: 0.0, Verdict.TIE: 0.5, Verdict.NEITHER: 0.5}


class Battle(NamedTuple):
    """One judgement of two policies' answers to a prompt.

    Attributes:
        prompt: its key; judgements of one prompt are not independent.
        first, second: digests of the policies.
        score: 1 where the first was better, 0 the second, 0.5 neither.
        longer: characters of the first answer beyond those of the second.
        marked: headings, list items and bold passages of the first beyond those of the second.
    """

    prompt: str
    first: str
    second: str
    score: float
    longer: int
    marked: int


def battles(store: Store) -> Iterator[Battle]:
    """Every standing pairwise judgement of answers that two different policies gave here."""
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
        for entry in store.entries_of(numbers[start : start + AT_ONCE], upto):
            for said in entry.judgements:
                answers = [entry.comparison.completions[k] for k in (0, 1)]
                made = [_policy(each) for each in answers]
                if (
                    isinstance(said.opinion, Pairwise)
                    and said.opinion.verdict in _SCORES
                    and made[0] != made[1]
                    and all(made)
                ):
                    texts = [each.text for each in answers]
                    yield Battle(entry.comparison.prompt.key, made[0], made[1], _SCORES[said.opinion.verdict],
                                 len(texts[0]) - len(texts[1]), _marks(texts[0]) - _marks(texts[1]))  # fmt: skip


def _policy(completion: Completion) -> str:
    return completion.origin.policy if isinstance(completion.origin, Sampled) else ""


def _marks(text: str) -> int:
    return len(_MARKUP.findall(text))
