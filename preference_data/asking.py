"""Comparisons of the store become items of a project."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

from preference_data.errors import QueueError, Refused
from preference_data.opinions import check, is_skip
from preference_data.projects import Mode, Project, Projects, ProjectSettings
from preference_data.queue import Candidate, Queue
from preference_data.records import Comparison, Judgement
from preference_data.selection import choose
from preference_data.store import Entry, Store
from preference_data.votes import SET_ASIDE

BATCH = 1_000
"""Items per transaction."""


class Strategy(NamedTuple):
    """How comparisons are chosen.

    Attributes:
        name: stored with each item.
        worth: of each comparison by key, 0 or more; those it leaves out are worth 0, and where all are, all are alike.
    """

    name: str
    worth: Callable[[Sequence[Comparison]], Mapping[str, float]]


def _alike(_: Sequence[Comparison]) -> Mapping[str, float]:
    return {}


RANDOM = Strategy("random", _alike)


class Asked(NamedTuple):
    """What came of it, in comparisons.

    Attributes:
        found: that fit the mode and the source.
        added: of these, now in the queue.
        known: of these, in the queue already.
        left_out: not drawn, because only so many were wanted.
        weighted: worth more than nothing to the strategy; where none is, all were drawn at random.
    """

    found: int
    added: int
    known: int
    left_out: int
    weighted: int


def ask(
    store: Store,
    project: str,
    mode: Mode,
    *,
    guideline: str,
    settings: ProjectSettings,
    by: str,
    sources: tuple[str, ...] = (),
    needs: tuple[str, ...] = (),
    only: Collection[str] = (),
    strategy: Strategy = RANDOM,
    count: int = 0,
    seed: int = 0,
) -> Asked:
    """Begin a project if there is none of that name, and put comparisons into its queue.

    Args:
        store: where the comparisons are.
        project: its name; an existing one keeps its mode, settings and guideline.
        mode: how a new project is judged; comparisons with another number of answers are passed over.
        guideline: of a new project, Markdown.
        settings: of a new project.
        by: who asks.
        sources: comparisons of these sources only; empty for all.
        only: keys of comparisons; empty for all.
        needs: names of slices, such as language, whose value a person must be able to judge.
        strategy: what comparisons are worth; a fifth of the draw is uniform whatever it says, and all of it at random.
        count: how many to draw; 0 for all. Known ones count, so that drawing the same again adds nothing.
        seed: which ones are drawn.

    Raises:
        QueueError: nothing fits, or the project's settings are wrong.
    """
    projects = Projects(store.engine)
    known = {each.name: each for each in projects.all()}
    mode = known[project].mode if project in known else mode
    fitting = [c for c in _comparisons(store, sources) if fits(c, mode) and (not only or c.key in only)]
    found = {c.key: _needs(c, needs) for c in fitting}
    if not found:
        wanted = f"of {', '.join(sources)} " if sources else ""
        raise QueueError(f"project {project!r}: no comparison {wanted}has as many answers as the mode {mode!r} asks for; "
                         "import or generate some first, or name another source")  # fmt: skip
    if project not in known:
        projects.create(project, mode, guideline=guideline, settings=settings, by=by)
    worth = dict.fromkeys(found, 0.0) | dict(strategy.worth(fitting))
    chosen = choose(worth, count or len(found), seed=seed)
    queue = Queue(store.engine)
    added = repeated = 0
    for start in range(0, len(chosen), BATCH):
        piece = [
            Candidate(comparison=c.key, propensity=c.propensity, strategy=strategy.name, needs=found[c.key])
            for c in chosen[start : start + BATCH]
        ]
        queued = queue.add(project, piece, by=by)
        added, repeated = added + queued.added, repeated + queued.known
    weighted = sum(each > 0 for each in worth.values())
    return Asked(len(found), added, repeated, len(found) - len(chosen), weighted)


class Known(NamedTuple):
    """What came of adding items whose answer is known, in comparisons.

    Attributes:
        added: now in the queue.
        known: in the queue already; what they are there for stays.
        without: no judgement of theirs is an answer that the project could be given.
    """

    added: int
    known: int
    without: int


def ask_known(
    store: Store, project: str, purpose: Literal["gold", "trial"], *, sources: tuple[str, ...], by: str
) -> Known:
    """Put comparisons whose answer is known into a project's queue.

    Args:
        store: where the comparisons are; the last judgement of each is the answer, its rationale what a trial explains.
        project: its name.
        purpose: `gold` to see who judges well, `trial` to teach people before the work begins.
        sources: of the comparisons.
        by: who asks.

    Raises:
        QueueError: there is no such project, or no comparison of the sources has an answer.
    """
    found = Projects(store.engine).get(project)
    entries = [e for e in store.entries() if e.comparison.source in sources and fits(e.comparison, found.mode)]
    candidates = [
        Candidate(
            comparison=e.comparison.key, purpose=purpose, strategy=purpose, expected=said.opinion, why=said.rationale
        )
        for e in entries
        if (said := _answer(e, found))
    ]
    if not candidates:
        raise QueueError(f"project {project!r}: no comparison of {', '.join(sources)} has a judgement that fits the mode {found.mode!r}; "
                         "judge or import some first, or name another source")  # fmt: skip
    queued = Queue(store.engine).add(project, candidates, by=by)
    return Known(queued.added, queued.known, len(entries) - len(candidates))


def _answer(entry: Entry, project: Project) -> Judgement | None:
    """The last judgement that a project could be given."""
    for said in reversed(entry.judgements):
        with suppress(Refused):
            check(said.opinion, project, len(entry.comparison.completions))
            if not is_skip(said.opinion) and SET_ASIDE.isdisjoint(said.flags):
                return said
    return None


def fits(comparison: Comparison, mode: Mode) -> bool:
    """Whether a comparison has as many answers as a mode judges."""
    answers = len(comparison.completions)
    match mode:
        case "pairwise":
            return answers == 2
        case "thumb":
            return answers == 1
        case "ranking":
            return answers > 1
        case "rating":
            return True


def _needs(comparison: Comparison, names: tuple[str, ...]) -> dict[str, str]:
    return {name: comparison.slices[name] for name in names if name in comparison.slices}


def _comparisons(store: Store, sources: tuple[str, ...]) -> list[Comparison]:
    return [e.comparison for e in store.entries() if not sources or e.comparison.source in sources]
