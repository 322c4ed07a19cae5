"""What a page and a file tell about a policy: what its round gained and cost, whether it may be promoted, what to do."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from workbench.drift.metrics import turned_of
from workbench.drift.uncertainty import Estimate, format_estimate
from workbench.reports.figure import Figure
from workbench.reports.figures import Href, figures, kind_of
from workbench.reports.matrix import Grid, grid
from workbench.reports.turned import Turns, turns
from workbench.rounds.gate import FALSE_ALARMS
from workbench.rounds.journal import RoundRecord
from workbench.tasks import suite_title
from workbench.views.fresh import Fresh, fresh_of, said_of
from workbench.views.inspection import Inspection, Overview
from workbench.views.numbers import CHANGE, TOLD_APART
from workbench.views.records import NOT_MEASURED, Cell, Change, DriftReport, Singles
from workbench.views.sentences import cost_lines, headlines, next_steps, unfinished


class Criterion(NamedTuple):
    """One line of the gate.

    Attributes:
        value: with its interval, in words; empty where it is missing.
        sees: smallest loss this n shows four times in five, or empty.
        alarms: how often a round that harmed nothing fails it, or empty.
        href: where the rows behind it are, if there are any to lead to.
    """

    name: str
    passed: bool
    threshold: float | None
    value: str
    rule: str
    reason: str
    sees: str
    alarms: str
    href: str | None = None


class Story(NamedTuple):
    """All that is told of a policy.

    Attributes:
        record: the round that made it; None for a base or what was adopted.
        criteria: what the gate asked; empty where none judged it.
        gate: how it decided, as `gate_heading` says it.
        said: what the newest round did, in sentences.
        steps: what to do next.
        turned: what the newest round turned of every version's pairs.
        names: what people call versions and policies, by digest.
    """

    view: Overview
    record: RoundRecord | None
    criteria: tuple[Criterion, ...]
    gate: str
    said: tuple[str, ...]
    steps: tuple[str, ...]
    grid: Grid
    figures: tuple[Figure, ...]
    turned: tuple[Turns, ...]
    names: Mapping[str, str]


def story(inspection: Inspection, view: Overview, href: Href) -> Story:
    """What there is to tell of the newest policy of a lineage.

    Args:
        inspection: the workspace.
        view: the lineage.
        href: where the rows behind a number are.
    """
    made = view.policies[-1].made_by
    record = next((r for r in inspection.rounds() if r.digest == made), None)
    names = inspection.names()
    light = as_report(view, since=max(1, view.rounds))
    fresh = fresh_of(inspection.places, record) if record else None
    verdict: Mapping[str, Any] | None = record.verdict if record else None
    return Story(
        view=view,
        record=record,
        criteria=criteria(verdict, names, lambda name: _rows_of(view, record, name, href)),
        gate=gate_heading(record),
        said=(*(_earned(view, fresh, names) if fresh else ()), *headlines(light), *cost_lines(view)),
        steps=next_steps(light, verdict, elsewhere=unfinished(inspection.rounds()), whole=not view.slice),
        grid=grid(view, href),
        figures=tuple(figures(view, href)),
        turned=turns(view, href),
        names=names,
    )


def _earned(view: Overview, fresh: Fresh, names: Mapping[str, str]) -> Iterator[str]:
    """What a round on fresh answers learned from."""
    told = ", ".join(f"{name} {value}" for name, value in said_of(fresh, names)[1:])
    about = f": {told}" if told else ""
    yield (
        f"round {view.rounds} learned from its own answers to the prompts of '{view.versions[view.rounds - 1].name}' "
        f"({fresh.objective}), not from its pairs{about}"
    )


def gate_heading(record: RoundRecord | None) -> str:
    """How the gate of a round decided, and on what, where that is not the policy as it was trained; empty where none did."""
    if record is None or not record.verdict:
        return ""
    return f"{judged_by(json.loads(record.plan).get('judged', 'child'))}: {'passed' if record.verdict['passed'] else 'failed'}"


def judged_by(judged: str) -> str:
    """The gate, and on what it judged, where that is not the policy as it was trained.

    >>> judged_by("q8_0")
    'Gate on the policy merged and rounded to q8_0'
    """
    known = {"child": "", "merged": " on the policy merged into its base"}
    return f"Gate{known.get(judged, f' on the policy merged and rounded to {judged}')}"


def criteria(
    verdict: Mapping[str, Any] | None, names: Mapping[str, str], href: Callable[[str], str | None] = lambda _: None
) -> tuple[Criterion, ...]:
    """The gate's lines, those that failed first; `href` says by its name where the rows behind one are."""
    if verdict is None:
        return ()
    rows = verdict["criteria"]
    losses = sum(_is_judged_loss(row) for row in rows)
    found = (_criterion(row, names, max(losses, 1))._replace(href=href(row["name"])) for row in rows)
    return tuple(sorted(found, key=lambda one: one.passed))


def _rows_of(view: Overview, record: RoundRecord | None, criterion: str, href: Href) -> str | None:
    """Where the rows behind a line of the gate are; nowhere if it judged another artifact, or other items, than are shown."""
    if record is None or view.slice or json.loads(record.plan).get("judged", "child") != "child":
        return None
    policy, (kind, _, about) = view.policies[-1], criterion.partition("/")
    match kind:
        case "gain":
            name, suite = "from parent", f"retention/{policy.version}"
        case "retention":
            name, suite = "from parent", criterion
        case "tax":
            name, suite = "tax", next((s for s in view.suites("tax") if s == about or s.startswith(f"{about}/")), "")
        case "kl":
            name, suite = f"kl/{view.policies[0 if about == 'base' else -2].digest}", f"samples/{policy.version}"
        case _:
            return None
    return href(policy.digest, name, suite) if view.number(policy.digest, name, suite).n else None


def _is_judged_loss(row: Mapping[str, Any]) -> bool:
    """Whether the gate shared its level with this row; a replaced version is shown and not judged."""
    return str(row["name"]).startswith(("retention/", "tax/")) and row["threshold"] is not None


def as_report(view: Overview, since: int = 1) -> DriftReport:
    """The lineage as far as sentences are made of it, with the changes of its rounds from one on."""
    first = {v.digest: i for i, v in reversed(list(enumerate(view.versions)))}
    cells: list[tuple[Cell, ...]] = []
    for policy in view.policies:
        own = {digest: _cell(view, policy.digest, policy.round, i) for digest, i in first.items()}
        cells.append(tuple(own[v.digest] for v in view.versions))
    return DriftReport(
        view.policies,
        view.versions,
        view.condition,
        tuple(cells),
        changes(view, since),
        (),
        (),
        (),
        (),
        (),
        (),
        _singles(view),
    )


def _singles(view: Overview) -> tuple[Singles, ...]:
    return tuple(
        Singles(
            p.round, suite.partition("/")[2], *(view.number(p.digest, name, suite) for name in (TOLD_APART, CHANGE))
        )
        for p in view.policies[1:]
        for suite in view.suites(TOLD_APART)
    )


def changes(view: Overview, since: int = 1) -> tuple[Change, ...]:
    """What every round from one on did to every version, each version once."""
    places = {v.digest: i for i, v in reversed(list(enumerate(view.versions)))}
    found: list[Change] = []
    for policy in view.policies[since:]:
        for i in sorted(places.values()):
            version = view.versions[i]
            suite = f"retention/{version.digest}"
            lost, gained = (view.number(policy.digest, name, suite) for name in ("lost", "gained"))
            found.append(
                Change(
                    round=policy.round,
                    version=i,
                    kind=kind_of(view, version, policy),
                    from_parent=view.number(policy.digest, "from parent", suite),
                    from_base=view.number(policy.digest, "from base", suite),
                    flips=turned_of(lost, gained),
                )
            )
    return tuple(found)


def _cell(view: Overview, policy: str, after: int, version: int) -> Cell:
    digest = view.versions[version].digest
    value = view.number(policy, "accuracy", f"retention/{digest}")
    own = view.policies[after].version == digest
    rest = NOT_MEASURED
    return Cell(after, version, own, value, rest, rest, rest, chosen_change=rest, by_answer={})


def _criterion(row: Mapping[str, Any], names: Mapping[str, str], losses: int) -> Criterion:
    kind, _, about = str(row["name"]).partition("/")
    called = names.get(about) or suite_title(about)
    found = row["value"]
    value = Estimate(*(found[name] for name in Estimate._fields)) if found else None
    sees = row.get("smallest_visible")
    return Criterion(
        name=f"{kind}: {called}" if about else kind,
        passed=row["passed"],
        threshold=row["threshold"],
        value=format_estimate(value, digits=3) if value else "",
        rule=row["rule"],
        reason=row["reason"],
        sees=f"{sees:.3f}" if sees is not None else "",
        alarms=f"{100 * FALSE_ALARMS / losses:.1f} %" if _is_judged_loss(row) else _ALARMS.get(kind, ""),
    )


_ALARMS = {"kl": "0 %"}
