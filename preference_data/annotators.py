"""How each person judges: how much, how fast, how like the others, and whether side or length decide for them."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from math import fsum
from statistics import median
from typing import NamedTuple

from scipy.stats import binomtest

from preference_data.opinions import agrees
from preference_data.records import Pairwise, Verdict
from preference_data.told import Told, answers, counted

IDLE_S = 300.0
"""A longer pause between two judgements is no work."""


class Share(NamedTuple):
    """Some of many.

    Attributes:
        p: two-sided exact binomial p against one half; None of nothing.
    """

    some: int
    of: int
    p: float | None = None

    @property
    def value(self) -> float | None:
        """None of nothing."""
        return self.some / self.of if self.of else None


class Annotator(NamedTuple):
    """A person's judgements in a project.

    Attributes:
        judged: judgements on work items.
        skipped: items skipped.
        late: judgements whose place had been given away.
        median_s: median seconds on the screen; None of nothing.
        active_min: minutes at work; pauses of more than `IDLE_S` are cut to the time on the screen.
        alike: answers equal to those others gave to the same questions.
        gold: gold items answered as expected.
        steady: repeats answered as the first time.
        left: sided judgements that took the answer on the left.
        longer: sided judgements that took the longer answer.
    """

    person: str
    judged: int
    skipped: int
    late: int
    median_s: float | None
    active_min: float
    alike: Share
    gold: Share
    steady: Share
    left: Share
    longer: Share


def annotators(everything: Sequence[Told]) -> list[Annotator]:
    """Everybody who judged, those who judged most first."""
    own: defaultdict[str, list[Told]] = defaultdict(list)
    for each in everything:
        own[each.person].append(each)
    alike = _alike(everything)
    found = [_annotator(person, said, alike.get(person, (0, 0))) for person, said in own.items()]
    return sorted(found, key=lambda each: (-each.judged, each.person))


def _annotator(person: str, said: list[Told], alike: tuple[int, int]) -> Annotator:
    work = counted(said)
    gold = [each for each in said if each.purpose == "gold" and each.outcome == "judged" and each.expected]
    right = sum(agrees(each.expected, each.opinion) for each in gold if each.expected)
    sided = [(each, s) for each in work if (s := _side(each)) is not None and len(each.shown_order) > 1]
    left = sum(each.shown_order[0] == side for each, side in sided)
    unequal = [(each, side) for each, side in sided if each.lengths[0] != each.lengths[1]]
    longer = sum(each.lengths[side] > each.lengths[1 - side] for each, side in unequal)
    return Annotator(
        person=person,
        judged=len(work),
        skipped=sum(each.outcome == "skipped" for each in said),
        late=sum(each.outcome == "late" for each in said),
        median_s=median(each.seconds for each in work) if work else None,
        active_min=_active_s(said) / 60,
        alike=Share(*alike),
        gold=Share(right, len(gold)),
        steady=_steady(said),
        left=_tested(left, len(sided)),
        longer=_tested(longer, len(unequal)),
    )


def _side(each: Told) -> int | None:
    """The answer that was taken, None where none was."""
    match each.opinion:
        case Pairwise(Verdict.FIRST):
            return 0
        case Pairwise(Verdict.SECOND):
            return 1
        case _:
            return None


def _tested(some: int, of: int) -> Share:
    return Share(some, of, float(binomtest(some, of).pvalue) if of else None)


def _active_s(said: list[Told]) -> float:
    """Seconds between judgements; after a long pause, and at first, the time the item was on the screen."""
    times = sorted(moment for each in said for moment in each.worked or ((each.at, each.seconds),))
    gaps = [(after - before).total_seconds() for (before, _), (after, _) in pairwise(times)]
    on_screen = [min(seconds, IDLE_S) for _, seconds in times]
    work = (gap if gap <= IDLE_S else shown for gap, shown in zip(gaps, on_screen[1:], strict=True))
    return fsum([*on_screen[:1], *work])


def _steady(said: list[Told]) -> Share:
    first = {each.item: each for each in said if each.purpose == "work" and each.outcome == "judged"}
    again = [each for each in said if each.purpose == "repeat" and each.outcome == "judged" and each.item in first]
    return Share(sum(agrees(first[each.item].opinion, each.opinion) for each in again), len(again))


def _alike(everything: Sequence[Told]) -> dict[str, tuple[int, int]]:
    """Per person, how many answers of others to the same questions were equal, of how many."""
    given: defaultdict[tuple[int, str], list[tuple[str, float]]] = defaultdict(list)
    for each in counted(everything):
        for question, answer in answers(each.opinion, ordinal=False).items():
            given[each.item, question].append((each.person, answer))
    found: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for several in given.values():
        for person, answer in several:
            found[person][0] += sum(answer == other for who, other in several if who != person)
            found[person][1] += sum(who != person for who, _ in several)
    return {person: (some, of) for person, (some, of) in found.items()}
