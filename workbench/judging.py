"""Who judges which comparisons of a turn, and machines doing it. People do it on the page."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import NamedTuple

from preference_data.machines import is_machine
from preference_data.records import Comparison, Judgement, Pairwise, Verdict, digest, now
from preference_data.simulate import GUIDELINES, judge
from preference_data.store import Entry, Store
from workbench.ai_judge import judge_behind
from workbench.config import JUDGES, MODEL, JudgeSettings, LoopSettings, RewardSettings, settings_from
from workbench.drift.uncertainty import Estimate, format_estimate, not_enough, proportion
from workbench.errors import ConfigError, JudgeError
from workbench.rewards import Models, Reward, gaps, no_models, reward_named

BATCH = 100
"""Judgements a machine gives before they are stored: a killed judge loses no more."""
SIDES = 2
PEOPLE = "people"
DECIDED = frozenset([Verdict.FIRST, Verdict.SECOND])
SHARED = 100
"""Comparisons of people that a machine is tried on."""

Judge = Callable[[Sequence[Comparison]], Sequence[Judgement]]
"""Judges comparisons of two answers, in the order given."""


class Agreement(NamedTuple):
    """How a machine stands to people, on comparisons that they decided.

    Attributes:
        agrees: how often it says what they said; where it decides nothing it is half right, as by a throw of a coin.
        asked: comparisons it was asked about.
        overrides: how often it decided against its receipt, where it decided; without a value where it has none.
        right: how often people bear out such an override.
    """

    agrees: Estimate
    asked: int
    overrides: Estimate
    right: Estimate


class Judged(NamedTuple):
    """How far a turn's comparisons are judged.

    Attributes:
        judged: with a judgement, ties included.
        ties: of these, where the last judgement tells no difference; a skip tells none.
        waiting: keys of those that wait for people.
    """

    judged: int
    ties: int
    waiting: tuple[str, ...]


def of_source(store: Store, source: str) -> Iterator[Entry]:
    """Comparisons of two answers of one source, with their judgements."""
    return (e for e in store.entries() if e.comparison.source == source and len(e.comparison.completions) == SIDES)


def who_judges(comparison: Comparison, judges: Sequence[JudgeSettings]) -> JudgeSettings:
    """The judge of a comparison, drawn by its content."""
    drawn = int(digest(["judge", comparison.key])[:13], 16) / 16**13
    for one in judges:
        if drawn < one.share:
            return one
        drawn -= one.share
    return judges[-1]


def judge_open(
    store: Store,
    source: str,
    judges: Sequence[JudgeSettings],
    machines: Mapping[JudgeSettings, Judge],
    *,
    most: int = 0,
    tell: Callable[[int, int], None] = lambda *_: None,
) -> Judged:
    """Let machines judge what nobody has judged yet of a source, and count what is left to people.

    Args:
        store: where the comparisons are and the judgements go.
        source: of the comparisons.
        judges: who judges which share.
        machines: those that are no people.
        most: judgements the source may have in all; 0 for no limit.
        tell: how many are judged, and of how many.
    """
    entries = list(of_source(store, source))
    wanted = entries[:most] if most else entries
    todo = [e.comparison for e in wanted if not e.judgements]
    done = len(wanted) - len(todo)
    for one in judges:
        if one.by == PEOPLE:
            continue
        for given in judge_all(store, [c for c in todo if who_judges(c, judges) == one], machines[one]):
            done += given
            tell(done, len(wanted))
    return counted(store, source, judges, most=most)


def judge_all(store: Store, comparisons: Sequence[Comparison], judge: Judge) -> Iterator[int]:
    """Have a machine judge comparisons and store what it says, some at a time; how many each time."""
    left = iter(comparisons)
    while batch := list(islice(left, BATCH)):
        given = judge(batch)
        store.add(Entry(c, (j,)) for c, j in zip(batch, given, strict=True))
        yield len(batch)


def counted(store: Store, source: str, judges: Sequence[JudgeSettings], *, most: int = 0) -> Judged:
    """How far a source is judged."""
    entries = list(of_source(store, source))
    wanted = entries[:most] if most else entries
    judged = [e.judgements[-1] for e in wanted if e.judgements]
    todo = (e.comparison for e in wanted if not e.judgements)
    waiting = tuple(c.key for c in todo if who_judges(c, judges).by == PEOPLE)
    return Judged(len(judged), sum(_is_tie(one) for one in judged), waiting)


def _is_tie(judgement: Judgement) -> bool:
    return isinstance(judgement.opinion, Pairwise) and judgement.opinion.verdict not in {Verdict.FIRST, Verdict.SECOND}


def by_rule(by: str, *, error_rate: float = 0.0, seed: int = 0) -> Judge:
    """A judge that follows a verifiable guideline: `rule:NAME`, or `simulated:NAME`, which may err.

    Raises:
        ConfigError: there is no such guideline.
    """
    kind, _, name = by.partition(":")
    if name not in GUIDELINES:
        raise ConfigError(f"judge {by!r}: unknown guideline {name!r}; known guidelines: {', '.join(GUIDELINES)}")
    if kind == "rule" and error_rate:
        raise ConfigError(f"judge {by!r}: a rule does not err; leave error_rate out, or use simulated:{name}")

    def judged(comparisons: Sequence[Comparison]) -> list[Judgement]:
        moment = now()
        return [
            judge(GUIDELINES[name], c, annotator=by, error_rate=error_rate, seed=seed, at=moment) for c in comparisons
        ]

    return judged


def by_reward(name: str, reward: Reward) -> Judge:
    """A judge that prefers the answer with the higher reward; equal ones are ties."""

    def judged(comparisons: Sequence[Comparison]) -> list[Judgement]:
        found, moment = gaps(reward, comparisons), now()
        return [Judgement(c.key, name, _preferred(gap), moment) for c, gap in zip(comparisons, found, strict=True)]

    return judged


def _preferred(gap: float) -> Pairwise:
    if gap == 0:
        return Pairwise(Verdict.TIE)
    return Pairwise(Verdict.FIRST if gap > 0 else Verdict.SECOND, 1)


def judge_named(settings: JudgeSettings, models: Models = no_models) -> Judge:
    """A machine that judges, by its name.

    Args:
        settings: name it.
        models: finds reward models.

    Raises:
        ConfigError: there is no such judge.
    """
    kind, _, rest = settings.by.partition(":")
    match kind:
        case "rule" | "simulated":
            return by_rule(settings.by, error_rate=settings.error_rate)
        case "reward":
            return by_reward(
                settings.by, reward_named(settings_from({"by": rest}, RewardSettings, where="judge"), models)
            )
        case "ai":
            receipt: dict[str, object] = {"by": settings.receipt}
            receipts = (
                reward_named(settings_from(receipt, RewardSettings, where="receipt"), models)
                if settings.receipt
                else None
            )
            return judge_behind(settings.by, guideline=settings.guideline, receipts=receipts)
        case _:
            raise ConfigError(f"judge {settings.by!r}: unknown; expected {JUDGES}")


def machines_of(settings: LoopSettings, models: Models) -> dict[JudgeSettings, Judge]:
    """The machines that judge in a loop, by their settings.

    One that asks a reward model which an earlier turn of the loop will have trained is made when it is first asked.

    Args:
        settings: of the loop.
        models: finds reward models.

    Raises:
        ConfigError: there is no such judge.
    """
    found: dict[JudgeSettings, Judge] = {}
    for turn, judges in enumerate(settings.judges, 1):
        trained = {f"{MODEL}{settings.name}-{n}" for n in range(1, turn)} if settings.reward_model else set[str]()
        for one in judges:
            if one.by.removeprefix("reward:") in trained or one.receipt in trained:
                found[one] = _made_when_asked(one, models)
            elif one.by != PEOPLE:
                found[one] = judge_named(one, models)
    return found


def _made_when_asked(settings: JudgeSettings, models: Models) -> Judge:
    made = cache(lambda: judge_named(settings, models))

    def judged(comparisons: Sequence[Comparison]) -> Sequence[Judgement]:
        return made()(comparisons)

    return judged


def agreement_with_people(store: Store, judge: Judge, *, most: int = SHARED) -> Agreement:
    """How often a machine says what people said, and whether it is right where it overrides its receipt; nothing is stored.

    Args:
        store: of judgements.
        judge: the machine.
        most: comparisons it is asked about.
    """
    by_people = [
        (e.comparison, said)
        for e in store.entries()
        if len(e.comparison.completions) == SIDES and (said := _of_people(e.judgements)) is not None
    ]
    chosen = sorted(by_people, key=lambda each: digest(["shared", each[0].key]))[:most]
    given = judge([c for c, _ in chosen]) if chosen else ()
    decided = [
        (one.opinion.verdict == said, one.extra.get("overridden"))
        for (_, said), one in zip(chosen, given, strict=True)
        if isinstance(one.opinion, Pairwise) and one.opinion.verdict in DECIDED
    ]
    with_receipt = [overridden for _, overridden in decided if overridden is not None]
    ties = [1 / 2] * (len(chosen) - len(decided))
    return Agreement(
        _share([*(right for right, _ in decided), *ties], "no shared comparison"), len(chosen),
        _share(with_receipt, "no receipt"), _share([right for right, overridden in decided if overridden], "no override"),
    )  # fmt: skip


def _share(hits: Sequence[float], none: str) -> Estimate:
    return proportion(sum(hits), len(hits)) if hits else not_enough(0, none)


def _of_people(judgements: Sequence[Judgement]) -> Verdict | None:
    """The last decided verdict a person gave."""
    for one in reversed(judgements):
        if not is_machine(one.annotator) and isinstance(one.opinion, Pairwise) and one.opinion.verdict in DECIDED:
            return one.opinion.verdict
    return None


def require_trust(store: Store, settings: JudgeSettings, judge: Judge) -> Agreement | None:
    """Refuse an AI judge that people do not bear out; how it stands to them, None where nobody asked.

    Raises:
        JudgeError: too few comparisons of people to tell, or it agrees too seldom.
    """
    if not settings.by.startswith("ai:") or not settings.trust:
        return None
    found = agreement_with_people(store, judge)
    if found.agrees.low is None or found.agrees.low < settings.trust:
        raise JudgeError(
            f"judge {settings.by}: agrees with people on {format_estimate(found.agrees)} of {found.asked} comparisons; expected a lower bound of "
            f"{settings.trust:g} or more; have people judge some first (judges = 'people'), or choose another judge"
        )
    return found
