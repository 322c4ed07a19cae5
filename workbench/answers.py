"""What a round on answers by themselves trains on: every answer good or bad, each beside one that belongs to another prompt.

Such a couple is written as a pair, the answer first: scores, batches and proofs then know it as any other. Kahneman-Tversky
optimisation (Ethayarajh et al., arXiv 2402.01306) asks of the second one alone how far the policy has moved from its reference.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from math import fsum

from preference_data.records import Pair, digest
from preference_data.versions import Version
from preference_data.votes import NOTHING

SIDE, GOOD, BAD = "_side", "good", "bad"
"""A slice of what is trained on, and its values: which of the two the answer is. No name that data would use."""
# Weights are sums of fractions; those that cancel leave less than this.
_EQUAL = 1e-9


def answers_of(version: Version) -> list[Pair]:
    """Every training answer that a version calls good or bad, each once, as a pair with nothing beside it.

    Single answers are what they are; of a pair the chosen one is good and the rejected one bad, with the pair's weight. All
    that is said of an answer counts together, as at a freeze: its weight is the net share, and what cancels says nothing.
    """
    said: dict[tuple[str, str], list[tuple[float, Pair]]] = defaultdict(list)
    for weight, one in _said(version):
        said[one.prompt.key, one.chosen].append((weight, one))
    found: list[Pair] = []
    for each in said.values():
        net, first = fsum(weight for weight, _ in each), each[0][1]
        if abs(net) > _EQUAL:
            side = {SIDE: GOOD if net > 0 else BAD}
            judgements = tuple(sorted({key for _, one in each for key in one.judgements}))
            found.append(
                replace(first, weight=abs(net) / len(each), judgements=judgements, slices={**first.slices, **side})
            )
    return sorted(found, key=lambda one: one.key)


def _said(version: Version) -> Iterable[tuple[float, Pair]]:
    """Weights, negative for what is bad, with the answer."""
    for one in version.singles("train"):
        pair = Pair(one.prompt, one.completion, NOTHING, 1.0, None, one.judgements, one.slices, one.split)
        yield one.weight if one.good else -one.weight, pair
    for pair in version.pairs("train"):
        yield pair.weight, replace(pair, rejected=NOTHING, strength=None)
        yield -pair.weight, replace(pair, chosen=pair.rejected, rejected=NOTHING, strength=None)


def mismatched(answers: Sequence[Pair], seed: int) -> list[Pair]:
    """The same, each beside an answer to another prompt; which one is drawn once, the same on every machine.

    Prompts lie in an order drawn by the seed, their answers together: the answers of each prompt get those that follow them.

    Args:
        answers: to two prompts or more, as `answers_of` gives them.
        seed: draws the order.
    """
    drawn = sorted(answers, key=lambda one: (digest([seed, one.prompt.key]), one.key))
    found: list[Pair] = []
    for _, group in groupby(drawn, key=lambda one: one.prompt.key):
        own, start = list(group), len(found)
        end, others = start + len(own), len(drawn) - len(own) or 1
        found += [replace(one, rejected=drawn[(end + k % others) % len(drawn)].chosen) for k, one in enumerate(own)]
    return found
