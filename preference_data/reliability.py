"""How often each annotator is right, estimated from what several said of the same answers.

Nobody's answer is taken for the truth: whoever agrees with people who agree with others is taken to be right more
often. Two models, as crowd-kit has them:

* `dawid-skene`: one probability of being right per person (Dawid and Skene, "Maximum likelihood estimation of observer
  error-rates using the EM algorithm", Applied Statistics 28, 1979; the one-coin model).
* `mace`: a person either knows the answer or spams (Hovy et al., "Learning whom to trust with MACE", NAACL 2013). A
  spammer's answers carry nothing, however regular they are.

Its third, the noisy Bradley-Terry model, is left out: in crowd-kit 1.4.2 its scores grow without bound where the votes
on two answers agree, until they overflow, because its penalty has the wrong sign.
"""

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Literal, assert_never

from preference_data.pairs import Ballot
from preference_data.votes import votes_of

Estimate = Literal["dawid-skene", "mace"]
Reliability = Literal["alike", Estimate]
FEWEST = 10
"""Shared questions below which nothing is estimated and a person counts in full."""


def reliabilities(ballots: Iterable[Ballot], how: Estimate) -> dict[str, float]:
    """The probability that each annotator is right about which of two answers is better, in [0, 1].

    Annotators with fewer than `FEWEST` questions that somebody else answered, too, are left out.
    """
    said: defaultdict[tuple[str, str, str], dict[str, bool]] = defaultdict(dict)
    for comparison, judgement, *_ in ballots:
        for vote in votes_of(comparison, judgement)[0]:
            left, right = sorted((vote.better, vote.worse))
            said[comparison.prompt.key, left, right][judgement.annotator] = vote.better == left
    shared = [answers for answers in said.values() if len(answers) > 1]
    if not shared:
        return {}
    counts = Counter(person for answers in shared for person in answers)
    skills = _estimated([(n, person, left) for n, each in enumerate(shared) for person, left in each.items()], how)
    return {person: skills[person] for person, count in counts.items() if count >= FEWEST}


def _estimated(answers: list[tuple[int, str, bool]], how: Estimate) -> dict[str, float]:
    # Both are large, and most freezes need neither.
    import pandas as pd  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs]
    from crowdkit.aggregation import MACE, OneCoinDawidSkene  # noqa: PLC0415

    table = pd.DataFrame(answers, columns=["task", "worker", "label"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # crowd-kit 1.4 uses what pandas 4 will not have
        match how:
            case "dawid-skene":
                skills = OneCoinDawidSkene(n_iter=100).fit(table).skills_
                return {str(person): float(skill) for person, skill in skills.items()}
            case "mace":
                knows = MACE().fit(table).spamming_[:, 1]
                # Who does not know takes either.
                people = dict.fromkeys(person for _, person, _ in answers)  # in the order they first come
                return {person: (1 + float(knows[k])) / 2 for k, person in enumerate(people)}
            case _:
                assert_never(how)
