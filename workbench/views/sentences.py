"""A drift report in words: what each round did, and what to do next."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from workbench.drift.metrics import Turned
from workbench.drift.power import DISCORDANT, smallest_share_change
from workbench.drift.uncertainty import Estimate
from workbench.rounds.journal import RoundRecord
from workbench.tasks import suite_title
from workbench.views.inspection import SHOULD, Overview
from workbench.views.numbers import CHANGE
from workbench.views.records import Change, DriftReport

MOST_TOLD = 6
"""Sentences about one round."""
MOST_PAIRS = 100_000
"""Beyond this many test pairs a change is too small to be worth looking for."""


def change_lines(report: DriftReport, *, since: int = 1) -> tuple[str, ...]:
    """What each round did against its parent, one sentence per round and version it was or had been trained on.

    Args:
        report: the lineage.
        since: the first round told of.
    """
    return tuple(_told(report, one) for one in _of_pairs(report) if one.kind != "untrained" and one.round >= since)


def _of_pairs(report: DriftReport) -> list[Change]:
    """All changes but those on versions that have single answers alone."""
    alone = _with_singles(report)
    return [one for one in report.changes if one.from_parent.n or one.version not in alone]


def _with_singles(report: DriftReport) -> set[int]:
    """Places of versions that have single answers."""
    digests = {one.version for one in report.singles}
    return {place for place, version in enumerate(report.versions) if version.digest in digests}


def headlines(report: DriftReport) -> tuple[str, ...]:
    """What the newest round did for certain, its own version first, then by size; the rest is counted."""
    mine = [one for one in _of_pairs(report) if one.round == report.rounds and one.kind != "untrained"]
    certain = [one for one in mine if one.kind == "own" or _is_certain(one.from_parent)]
    certain.sort(key=lambda one: (one.kind != "own", -abs(one.from_parent.value or 0)))
    told = [_told(report, one) for one in certain[:MOST_TOLD]]
    more, rest = len(certain) - len(told), [one.from_parent.value for one in mine if one not in certain]
    unknown = rest.count(None)
    if more > 0:
        told.append(f"{more} further versions changed for certain, each by less")
    if len(rest) > unknown:
        told.append(f"{_earlier(len(rest) - unknown)} changed by no more than may be chance")
    if unknown:
        told.append(f"{_earlier(unknown)} cannot be judged: not measured, or too few pairs")
    return tuple(told)


def cost_lines(view: Overview) -> tuple[str, ...]:
    """What the newest round changed for certain beside pairs, against its parent: single answers, refusals, capability."""
    newest = view.policies[-1]

    def changes(number: str) -> Iterator[tuple[str, Estimate]]:
        found = [(suite, view.number(newest.digest, number, suite)) for suite in view.suites(number)]
        yield from (each for each in found if _is_certain(each[1]))

    names = {version.digest: version.name for version in view.versions}
    told = [
        f"round {newest.round} {_did(change)} at telling good single answers of '{names.get(digest, digest[:12])}' from bad ones (AUC)"
        for suite, change in changes(CHANGE)
        for digest in [suite.partition("/")[2]]
    ]
    told += [
        f"round {newest.round} refuses {'more' if (rise.value or 0) > 0 else 'fewer'} of the probes it should {should}: "
        f"{_spread(rise, sign='+')}"
        for number, should in SHOULD.items()
        for _, rise in changes(f"{number} from parent")
    ]
    taxes = sorted(changes("step tax"), key=lambda one: -abs(one[1].value or 0))
    told += [f"round {newest.round} {_did(tax.scaled(-100))} points on suite '{suite_title(suite)}'"
             for suite, tax in taxes[:MOST_TOLD]]  # fmt: skip
    if len(taxes) > MOST_TOLD:
        told.append(f"{len(taxes) - MOST_TOLD} further suites changed for certain, each by less")
    return tuple(told)


def pairs_needed(change: float, discordant: float = DISCORDANT) -> int | None:
    """Test pairs needed to find a change of a share four times in five.

    Args:
        change: size of the change, above 0.
        discordant: share of pairs that flip.

    Returns:
        The smallest such number; None where it is above `MOST_PAIRS`.
    """
    flips = min(max(discordant, abs(change), 1 / MOST_PAIRS), 1.0)

    def enough(n: int) -> bool:
        visible = smallest_share_change(n, discordant=flips)
        return visible is not None and visible <= abs(change)

    low, high = 0, MOST_PAIRS
    if not enough(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def next_steps(
    report: DriftReport, verdict: Mapping[str, Any] | None, *, elsewhere: Sequence[str] = (), whole: bool = True
) -> tuple[str, ...]:
    """Two or three things to do, derived from the numbers.

    Args:
        report: the lineage.
        verdict: what the gate said of its newest policy, as the journal keeps it; None where no gate judged it.
        elsewhere: where the newest round is to be seen, if its child is not in this lineage.
        whole: the report is of all items; in one of a slice, what has no number may be measured and have no such items.
    """
    if not report.rounds:
        return tuple(elsewhere) or _first_round(report)
    return (*_of_rounds(report, verdict, _unmeasured(report) if whole else ()), *elsewhere)


def unfinished(rounds: Sequence[RoundRecord]) -> tuple[str, ...]:
    """Where the newest round stands, if it has no child (yet); nothing of earlier ones.

    Args:
        rounds: oldest first.
    """
    if not rounds or rounds[-1].child is not None:
        return ()
    last = rounds[-1]
    state = "not ended" if last.state in {"planned", "running"} else last.state
    why = f": {last.message}" if last.message else ""
    return (
        f"round {last.number} has no child yet ({state}{why}): `workbench status` and its page say where it stands; "
        "asked for again, it goes on",
    )


def _of_rounds(report: DriftReport, verdict: Mapping[str, Any] | None, gaps: tuple[str, ...]) -> tuple[str, ...]:
    newest = report.policies[-1]
    if report.condition is None:
        return (f"measure what there is: `workbench evaluate {newest.name}`",)
    if verdict is None:
        return (*gaps, _onward(report))
    failed = [_Criterion.of(one) for one in verdict["criteria"] if not one["passed"]]
    if failed:
        by_hand = f"or take it anyway: `workbench promote {newest.name} --reason WHY`"
        return (*_advice(report, failed), *(() if newest.champion else (by_hand,)))
    return (_onward(report), *_blind_spots(report, verdict), *gaps)[:3]


class _Criterion(NamedTuple):
    """One line of a stored verdict."""

    kind: str
    about: str
    threshold: float
    value: float | None
    n: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "_Criterion":
        kind, _, about = str(row["name"]).partition("/")
        value: Mapping[str, Any] = row["value"] or {"value": None, "n": 0}
        return cls(kind, about, float(row["threshold"] or 0), value["value"], int(value["n"]))


def _earlier(count: int) -> str:
    return f"{count} earlier version{'' if count == 1 else 's'}"


def _is_certain(change: Estimate) -> bool:
    low, high = change.low, change.high
    return low is not None and high is not None and (low > 0 or high < 0)


def _did(value: Estimate) -> str:
    if value.value is None or value.low is None or value.high is None:
        return f"cannot be judged ({value.method})"
    if value.low > 0:
        return f"gained {_spread(value)}"
    if value.high < 0:
        return f"lost {_spread(value.scaled(-1))}"
    return f"changed by {_spread(value, sign='+')}, which may be chance,"


def _spread(value: Estimate, *, sign: str = "") -> str:
    return f"{value.value:{sign}z.2f} [{value.low:{sign}z.2f}, {value.high:{sign}z.2f}]"


def _told(report: DriftReport, change: Change) -> str:
    own = "whose prompts it answered afresh" if report.policies[change.round].online else "its own version"
    kind = {"own": own, "earlier": "an earlier version", "replaced": "which it replaces"}[change.kind]
    on = f"on '{report.versions[change.version].name}', {kind}"
    return f"round {change.round} {_did(change.from_parent)} {on}{_flips(change.flips)}"


def _flips(found: Turned | None) -> str:
    if found is None:
        return ""
    return f": {pairs_turned(found)}"


def pairs_turned(found: Turned) -> str:
    """How many pairs turned each way, and whether that may be chance."""
    if not found.gained and not found.lost:
        return "no pair changed sides"
    return f"{found.gained} wrong -> right, {found.lost} right -> wrong (McNemar p {chance_of(found)})"


def chance_of(found: Turned) -> str:
    """The p of what turned, with its sign: `= 0.031`, `< 0.001`."""
    return "< 0.001" if found.p < 0.001 else f"= {found.p:.3f}"


def _first_round(report: DriftReport) -> tuple[str, ...]:
    if not report.versions:
        return ("import preferences: `workbench import FILE`", "then freeze them: `workbench freeze --name NAME`")
    name = report.versions[-1].name
    return (f"see what a first round would cost: `workbench plan --version {name}`",
            f"then run it: `workbench round --version {name}`")  # fmt: skip


def _onward(report: DriftReport) -> str:
    newest = report.policies[-1]
    if newest.champion:
        return "let it answer new prompts, to judge for the next round: `workbench generate PROMPTS`"
    return f"make it champion, if the numbers above suit you: `workbench promote {newest.name} --reason WHY`"


def _unmeasured(report: DriftReport) -> tuple[str, ...]:
    """The first policy that misses a version the lineage was trained on, which leaves averages without a number."""
    expected = set(range(report.rounds)) - _with_singles(report)
    gaps = [p.name for p, row in zip(report.policies, report.cells, strict=True)
            if any(row[i].accuracy.value is None and not row[i].accuracy.n for i in expected)]  # fmt: skip
    told = "measure what the matrix misses, with the settings of the round"
    return (f"{told}: `workbench evaluate {gaps[0]} --settings FILE`",) if gaps else ()


def _blind_spots(report: DriftReport, verdict: Mapping[str, Any]) -> tuple[str, ...]:
    """How many test pairs would show the loss that the gate allows, where there are too few."""
    for row in verdict["criteria"]:
        visible, one = row.get("smallest_visible"), _Criterion.of(row)
        if one.kind != "retention" or visible is None or not one.threshold or visible <= 1.5 * one.threshold:
            continue
        needed = pairs_needed(one.threshold, _discordant(report, one.about))
        name = _version(report, one.about)
        if needed is not None and needed > one.n:
            return (f"'{name}' has {one.n} test pairs: a loss below {visible:.2f} cannot be seen; "
                    f"{needed - one.n} more would show one of {one.threshold:g}",)  # fmt: skip
    return ()


def _advice(report: DriftReport, failed: Sequence[_Criterion]) -> Iterator[str]:
    """One line per kind of threshold that was not reached."""
    newest = report.policies[-1]
    missing = [one for one in failed if one.value is None and one.kind != "finite weights"]
    if missing:
        yield f"{_called(report, missing)} has no number: `workbench evaluate {newest.name}`"
    kinds: dict[str, list[_Criterion]] = {}
    for one in failed:
        if one not in missing:
            kinds.setdefault(one.kind, []).append(one)
    for kind, ones in kinds.items():
        yield _advice_on(report, kind, ones) if kind != "gain" else _more_gain(report, ones[0], alone=len(kinds) == 1)


def _advice_on(report: DriftReport, kind: str, failed: Sequence[_Criterion]) -> str:
    online = report.policies[-1].online
    slower = f"lower training.learning_rate or {'online.steps' if online else 'training.epochs'}"
    match kind:
        case "retention":
            return (
                f"{_called(report, failed)} was lost: {_hold(report)}, or {slower}; if the new preference is meant to "
                "replace it, set update = true"
            )
        case "tax":
            return f"{_called(report, failed)} fell: {_hold(report)}, or {slower}"
        case "kl":
            budgets = " and ".join(f"gate.max_kl_{one.about}" for one in failed)
            return (
                f"it moved too far from {_called(report, failed)}: {_firmer(report)}, or {slower}; if that far is "
                f"right, raise {budgets}"
            )
        case _:
            return f"{kind}: {slower}, and check the base with `workbench policies --verify`"


def _more_gain(report: DriftReport, failed: _Criterion, *, alone: bool) -> str:
    newest = report.policies[-1]
    gain = (failed.value or 0) - failed.threshold
    if gain <= 0 and newest.online:
        return (
            "the pairs, which it did not learn from, are told apart no better: look at its reward beside them; if the reward is what "
            "counts, lower gate.min_gain, else learn from the pairs: online.objective = 'none'"
        )
    if gain <= 0 and alone:
        return (
            "it did not learn: raise training.epochs or training.learning_rate, or lower objective.beta; if it still "
            "does not, look at whether the judgements contradict each other"
        )
    if gain <= 0:
        return (
            "it moved without learning: look at whether the judgements contradict each other, and try another "
            "training.learning_rate"
        )
    needed = pairs_needed(gain, _discordant(report, newest.version))
    more = f"{needed - failed.n} more" if needed and needed > failed.n else "more"
    longer = "online.steps" if newest.online else "training.epochs"
    return (
        f"the gain may be chance: collect {more} test pairs (it has {failed.n}), or raise {longer} or "
        "training.learning_rate"
    )


def _hold(report: DriftReport) -> str:
    """How to pull the next attempt closer to what came before."""
    base, parent, newest = report.policies[0], report.policies[-2], report.policies[-1]
    if base == parent:
        return _firmer(report)
    if base.digest in newest.anchors:
        weight = newest.anchors[base.digest]
        return f"{_firmer(report)} or the weight of the base among the anchors (it was {weight:g})"
    return f"anchor it to base and parent (`--anchor base=0.5 --anchor {parent.name}=0.5`)"


def _firmer(report: DriftReport) -> str:
    """What weighs the distance from the anchors."""
    if report.policies[-1].online:
        return "raise online.beta and online.beta_old (lower online.kl_target, where it is set)"
    return "raise objective.beta"


def _called(report: DriftReport, criteria: Sequence[_Criterion]) -> str:
    """What the criteria are about, as people call it."""
    names = [f"'{_version(report, one.about)}'" if one.kind == "retention" else one.about or one.kind
             for one in criteria]  # fmt: skip
    return " and ".join(names)


def _version(report: DriftReport, digest: str) -> str:
    return next((v.name for v in report.versions if v.digest == digest), digest[:12])


def _discordant(report: DriftReport, digest: str) -> float:
    """Share of a version's pairs that flipped in the last round; the usual one where none did or nobody knows."""
    last: Sequence[Change] = [c for c in report.changes if c.round == report.rounds]
    for one in last:
        if report.versions[one.version].digest == digest and one.flips is not None and one.flips.n:
            return (one.flips.lost + one.flips.gained) / one.flips.n or DISCORDANT
    return DISCORDANT
