"""Prequential accuracy: how a policy judges each new judgement before it learns from it, and when that changed.

Score first, learn afterwards, as OSAKA's online performance does (Caccia et al., arXiv 2003.05856): no held-out set is
spent, and a change of what people want shows while it happens.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from scipy import stats

from workbench.drift.uncertainty import LEVEL, Estimate, not_enough, proportion

Kind = Literal["none", "weaker", "contrary"]
"""What became of the agreement: as expected; less than expected; against what was taught."""
LEAST_FALL = 0.15
"""The smallest fall of accuracy that is looked for."""
RUN = 1_000
"""Judgements until a false alarm, at least, on average."""
CLEAR_OF_CHANCE = 0.02


class Change(NamedTuple):
    """What a detector says of a sequence of judgements.

    Attributes:
        at: the first judgement after the change, from 0; None where there is none.
        noticed: the judgement at which it was sure; None where there is none.
        after: accuracy from the change on; of all judgements where there is none. Its interval takes `at` as given.
    """

    kind: Kind
    at: int | None
    noticed: int | None
    after: Estimate

    @property
    def proposal(self) -> str:
        """What to do about it; empty where nothing changed."""
        match self.kind:
            case "none":
                return ""
            case "weaker":
                return "people want something the policy does not know yet: run a round on these judgements"
            case "contrary":
                return "people now want the opposite of what was taught: run a round with update = true"


def changed(correct: Sequence[bool], expected: Estimate) -> Change:
    """Whether accuracy fell below what was expected, by a one-sided CUSUM of Bernoulli log likelihood ratios.

    The sum S <- max(0, S + log p1(x) / p0(x)) (Page 1954) with p0 the lower bound of the expected accuracy and p1 lower by
    `LEAST_FALL`; with an alarm at log(RUN) the mean number of judgements to a false alarm is at least `RUN` (Lorden 1971,
    theorem 2) wherever the accuracy is no lower than p0, which is why p0 is not the estimate itself.

    Args:
        correct: whether the policy preferred what each judgement preferred, oldest first.
        expected: its accuracy on held-out judgements of what it was taught; without a value nothing is looked for.
    """
    nothing = Change("none", None, None, accuracy(correct))
    if expected.low is None:
        return nothing
    before = min(expected.low, 1 - CLEAR_OF_CHANCE)
    after = before - LEAST_FALL
    if after < CLEAR_OF_CHANCE:  # there is no room to fall
        return nothing
    right, wrong = math.log(after / before), math.log((1 - after) / (1 - before))
    total, began = 0.0, 0
    for i, one in enumerate(correct):
        if total <= 0:
            total, began = 0.0, i
        total += right if one else wrong
        if total >= math.log(RUN):
            opposed = expected.low > 1 / 2 and _more_often_wrong(correct, began)
            return Change("contrary" if opposed else "weaker", began, i, accuracy(correct[began:]))
    return nothing


def _more_often_wrong(correct: Sequence[bool], began: int) -> bool:
    """Whether judgements are wrong more often than right from a place on that was chosen among all of them.

    The exact binomial test, its level shared out over all places it might have been (Bonferroni).
    """
    since = correct[began:]
    return float(stats.binom.cdf(sum(since), len(since), 1 / 2)) * len(correct) < (1 - LEVEL) / 2


def accuracy(correct: Sequence[bool]) -> Estimate:
    """Share of judgements the policy agreed with before it learned from them."""
    return proportion(sum(correct), len(correct)) if correct else not_enough(0, "no judgements")
