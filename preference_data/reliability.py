"""How often each annotator is right, estimated from what several said of the same answers.

Dawid and Skene, "Maximum likelihood estimation of observer error-rates using the EM algorithm", Applied Statistics 28,
1979, with one probability per person (the one-coin model) as crowd-kit has it. Nobody's answer is taken for the truth:
whoever agrees with people who agree with others is taken to be right more often.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

from preference_data.pairs import Ballot
from preference_data.votes import votes_of

Reliability = Literal["alike", "dawid-skene"]
FEWEST = 10
"""Shared questions below which nothing is estimated and a person counts in full."""


def reliabilities(ballots: Iterable[Ballot]) -> dict[str, float]:
    """The probability that each annotator is right about which of two answers is better, in [0, 1].

    Annotators with fewer than `FEWEST` questions that somebody else answered, too, are left out.
    """
    said: defaultdict[tuple[str, str, str], dict[str, bool]] = defaultdict(dict)
    for comparison, judgement, *_ in ballots:
        for vote in votes_of(comparison, judgement)[0]:
            left, right = sorted((vote.better, vote.worse))
            said[comparison.prompt.key, left, right][judgement.annotator] = vote.better == left
    shared = {question: answers for question, answers in said.items() if len(answers) > 1}
    counts: defaultdict[str, int] = defaultdict(int)
    for answers in shared.values():
        for person in answers:
            counts[person] += 1
    if not shared:
        return {}
    skills = _one_coin(
        [(str(n), person, left) for n, each in enumerate(shared.values()) for person, left in each.items()]
    )
    return {person: skills[person] for person, count in counts.items() if count >= FEWEST}


def _one_coin(answers: list[tuple[str, str, bool]]) -> dict[str, float]:
    # Both are large, and most freezes need neither.
    import pandas as pd  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs]
    from crowdkit.aggregation import OneCoinDawidSkene  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # crowd-kit 1.4 uses what pandas 4 will not have
        model = OneCoinDawidSkene(n_iter=100).fit(pd.DataFrame(answers, columns=["task", "worker", "label"]))
    return {str(person): float(skill) for person, skill in model.skills_.items()}
