"""Whether an opinion fits what was asked, and whether two agree."""

from collections.abc import Mapping, Sequence
from typing import assert_never

from preference_data.errors import Refused
from preference_data.projects import Project
from preference_data.records import Opinion, Pairwise, Ranking, Rating, Thumb, Verdict

ADJUDICATED = "adjudicated"
"""Flag of a lead's judgement that takes the place of all others of its comparison."""
NEAR = 1.0
"""Ratings that far apart still agree."""


def is_skip(opinion: Opinion) -> bool:
    """Whether nothing was said; in every mode a skip is a pairwise one."""
    return isinstance(opinion, Pairwise) and opinion.verdict is Verdict.SKIP


def check(opinion: Opinion, project: Project, answers: int) -> None:
    """Hold an opinion to a project's mode and to the number of answers.

    Raises:
        Refused: says what was given and what was expected.
    """
    if is_skip(opinion):
        return
    match opinion:
        case Pairwise():
            _expect(project, "pairwise")
            _check_pairwise(opinion, answers)
        case Thumb():
            _expect(project, "thumb")
        case Rating(scores):
            _expect(project, "rating")
            _check_rating(scores, project, answers)
        case Ranking(order):
            _expect(project, "ranking")
            if sorted(k for tied in order for k in tied) != list(range(answers)):
                raise Refused(f"ranking: got {order}; expected each of the {answers} answers once")
        case _:
            assert_never(opinion)


def agrees(expected: Opinion, given: Opinion) -> bool:
    """Whether an opinion is the expected one: the same side, thumb or ranking; ratings within one step."""
    match expected, given:
        case Pairwise(), Pairwise():
            return expected.verdict == given.verdict
        case Rating(wanted), Rating(scores):
            return len(wanted) == len(scores) and all(
                abs(score - one.get(name, float("inf"))) <= NEAR
                for one, other in zip(scores, wanted, strict=True)
                for name, score in other.items()
            )
        case _:
            return expected == given


def turned(opinion: Opinion, order: Sequence[int]) -> Opinion:
    """An opinion about answers that stood in some order, as one about the answers themselves.

    Args:
        opinion: one that `check` lets pass for as many answers as there are in the order.
        order: the index of the answer that stood first, then of the next, and so on.
    """
    match opinion:
        case Pairwise(Verdict.FIRST | Verdict.SECOND as side, strength):
            stood = 0 if side is Verdict.FIRST else 1
            return Pairwise(Verdict.FIRST if order[stood] == 0 else Verdict.SECOND, strength)
        case Pairwise() | Thumb():
            return opinion
        case Rating(scores):
            by_answer = dict(zip(order, scores, strict=True))
            return Rating(tuple(by_answer[k] for k in range(len(order))))
        case Ranking(ranked):
            return Ranking(tuple(tuple(sorted(order[k] for k in tied)) for tied in ranked))
        case _:
            assert_never(opinion)


def as_it_stood(opinion: Opinion, order: Sequence[int]) -> Opinion:
    """The inverse of `turned`: an opinion about the answers as one about where they stood."""
    return turned(opinion, [order.index(k) for k in range(len(order))])


def _expect(project: Project, mode: str) -> None:
    if project.mode != mode:
        raise Refused(f"opinion: got {mode}; expected {project.mode}, as project '{project.name}' asks")


def _check_pairwise(opinion: Pairwise, answers: int) -> None:
    if answers != 2:
        raise Refused(f"pairwise: the item has {answers} answers; expected two")
    if opinion.strength is not None and opinion.verdict not in {Verdict.FIRST, Verdict.SECOND}:
        raise Refused(
            f"strength: got {opinion.strength} with '{opinion.verdict}'; expected one with first or second alone"
        )


def _check_rating(scores: Sequence[Mapping[str, float]], project: Project, answers: int) -> None:
    settings = project.settings
    if len(scores) != answers:
        raise Refused(f"rating: got scores of {len(scores)} answers; expected {answers}")
    for one in scores:
        if set(one) != set(settings.dimensions):
            raise Refused(f"rating: got {dict(one)}; expected a number for each of {', '.join(settings.dimensions)}")
        for name, value in one.items():
            if not 1 <= value <= settings.scale:
                raise Refused(f"rating of {name}: got {value!r}; expected 1 to {settings.scale}")
