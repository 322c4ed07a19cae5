"""The figures of a lineage: what each shows, drawn, with the numbers behind it."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from markupsafe import Markup

from workbench.drift.uncertainty import Estimate, average
from workbench.reports.charts import FEW, Bar, Line, Point, Spot, lines, rows, spots
from workbench.tasks import suite_title
from workbench.views.inspection import Overview
from workbench.views.records import PolicyView, VersionView

Kind = Literal["own", "earlier", "replaced", "untrained"]
Href = Callable[[str, str, str], str | None]
"""Where the rows behind a number are: by policy, name and suite; None where nothing can be opened."""

RECENT, RECENT_OF_MANY = 12, 6
"""Lines of a figure at most, over few rounds and over many; of more suites the ones that moved furthest."""
MOST_ROWS = 20
"""Rows of a figure at most: its own version and the ones that moved furthest."""


class Figure(NamedTuple):
    """A figure.

    Attributes:
        key: names it in addresses.
        title: what it shows, as a sentence people can look for.
        note: how to read it.
        drawn: None where there is not enough to draw; `why` then says so.
        numbers: what it shows, by policy, name and suite.
    """

    key: str
    title: str
    note: str
    drawn: Markup | None
    why: str
    numbers: tuple[tuple[str, str, str], ...]


def figures(view: Overview, href: Href) -> Iterator[Figure]:
    """All figures of a lineage, in the order people ask."""
    yield newest(view, href)
    yield kept(view)
    yield taxes(view, href)
    yield divergences(view, href)
    yield frontier(view)
    yield pareto(view)
    yield line(view)
    yield margins(view, href)
    yield confidence(view, href)
    yield from (answers(view, href, *each) for each in ANSWERS)


def newest(view: Overview, href: Href) -> Figure:
    """What the last round did to every version."""
    policy, keys = view.policies[-1], list[tuple[str, str, str]]()
    bars: list[Bar] = []
    for version in view.trained if view.rounds else ():
        key = (policy.digest, "from parent", f"retention/{version.digest}")
        bars.append(Bar(version.name, view.number(*key), kind_of(view, version, policy), href(*key)))
        keys.append(key)
    title = f"What {called(policy)} gained and forgot" if view.rounds else "What the first round will gain"
    note = "Change of accuracy on held-out pairs against its parent; the ringed dot is what it was trained on, open ones were replaced."
    if len(bars) > MOST_ROWS:
        note += f" The {MOST_ROWS} of {len(bars)} versions that moved furthest."
        furthest = sorted(bars, key=lambda bar: (bar.kind != "own", -abs(bar.value.value or 0)))[:MOST_ROWS]
        bars = [bar for bar in bars if bar in furthest]
    return _figure("newest", title, note, rows(bars, title=title, unit="change of accuracy"), keys)


def kept(view: Overview) -> Figure:
    """How much of what was taught is still there, over the rounds."""
    taught: list[Point] = []
    new: list[Point] = []
    keys: list[tuple[str, str, str]] = []
    for policy in view.policies[1:]:
        gone = view.replaced
        before = [v for v in view.trained if (v.trained_in or 0) < policy.round and v.digest not in gone
                  and v.digest != policy.version]  # fmt: skip
        found = [(policy.digest, "accuracy", f"retention/{v.digest}") for v in before]
        if before:
            taught.append(Point(policy.round, average([view.number(*key) for key in found]), called(policy)))
        own = (policy.digest, "accuracy", f"retention/{policy.version}")
        new.append(Point(policy.round, view.number(*own), called(policy)))
        keys += [*found, own]
    given = [Line("earlier versions", tuple(taught)), Line("its own version", tuple(new))]
    title = "How much is still known of what was taught"
    note = "Mean accuracy on all versions of earlier rounds, and on the version of the round itself."
    return _figure("kept", title, note, lines(given, title=title, unit="accuracy"), keys)


def taxes(view: Overview, href: Href) -> Figure:
    """Capability lost against the base."""
    given, keys = _over_rounds(view, "tax", [(s, suite_title(s)) for s in view.suites("tax")], href, times=100)
    title = "Alignment tax: capability lost against the base, in points"
    note = "Above zero is lost. Accuracy suites in points, text in percent of the base's bits."
    return _figure("tax", title, note, lines(given, title=title, unit="points lost", zero=True), keys)


def divergences(view: Overview, href: Href) -> Figure:
    """How far each policy moved."""
    given: list[Line] = []
    keys: list[tuple[str, str, str]] = []
    for role, other in (("base", lambda p: view.policies[0]), ("parent", lambda p: view.policies[p.round - 1])):
        for prompts, wanted in (("new", True), ("old", False)):
            points: list[Point] = []
            for policy in view.policies[1:]:
                found = [
                    (policy.digest, f"kl/{other(policy).digest}", f"samples/{v.digest}") for v in view.trained
                    if (v.digest == policy.version) is wanted and (v.trained_in or 0) <= policy.round
                ]  # fmt: skip
                values = [v for key in found if (v := view.number(*key)).value is not None]
                if values:
                    points.append(Point(policy.round, average(values), called(policy), href(*found[0])))
                    keys += found
            given.append(Line(f"to {role}, {prompts} prompts", tuple(points)))
    given += _anchors(view, keys)
    title = "How far it moved: KL on its own answers"
    note = "Nats per token from the policy to its base, its parent and other anchors; old prompts are those of earlier rounds."
    return _figure("kl", title, note, lines(given, title=title, unit="nats per token", zero=True), keys)


def frontier(view: Overview) -> Figure:
    """What was gained for the distance moved."""
    given: list[Spot] = []
    keys: list[tuple[str, str, str]] = []
    for policy in view.policies[1:]:
        moved = (policy.digest, f"kl/{view.policies[0].digest}", f"samples/{policy.version}")
        gained = (policy.digest, "from base", f"retention/{policy.version}")
        keys += [moved, gained]
        kind = "champion" if policy.champion else ""
        given.append(Spot(called(policy), _root(view.number(*moved)), view.number(*gained), kind))
    title = "What a round gained for how far it moved from the base"
    note = "Gain on its own version against the square root of the KL to the base (axes of arXiv 2210.10760)."
    drawn = spots(given, title=title, units=("square root of KL to base", "gain of accuracy"), joined=False)
    return _figure("frontier", title, note, drawn, keys)


def pareto(view: Overview) -> Figure:
    """What is known of all versions, against what it cost."""
    given: list[Spot] = []
    keys: list[tuple[str, str, str]] = []
    for policy in view.policies[1:]:
        done = [v for v in view.trained if (v.trained_in or 0) <= policy.round and v.digest not in view.replaced]
        known = [(policy.digest, "accuracy", f"retention/{v.digest}") for v in done]
        cost = [(policy.digest, "tax", suite) for suite in view.suites("tax")]
        if known and cost:
            mark = "champion" if policy.champion else "update" if policy.update else ""
            spent, held = (average([view.number(*key) for key in part]) for part in (cost, known))
            given.append(Spot(called(policy), spent.scaled(100), held, mark))
            keys += [*known, *cost]
    title = "Gain against tax, policy by policy"
    note = "Mean accuracy on all versions taught so far against the mean tax of all suites: up and left is better."
    return _figure("pareto", title, note, spots(given, title=title, units=("tax in points", "accuracy")), keys)


def line(view: Overview) -> Figure:
    """What a smaller step than the last round's would have kept and cost."""
    title, keys = "What a smaller step would have kept and cost", list[tuple[str, str, str]]()
    if not view.rounds:
        return Figure("between", title, "", None, "There is no round yet.", ())
    parent, policy = view.policies[-2:]
    known = [v for v in view.trained if v.digest not in view.replaced]
    points = {0.0: parent.digest, **view.between, 1.0: policy.digest}
    given: list[Spot] = []
    for share, mixed in sorted(points.items()) if view.between else ():
        cost = [(mixed, "tax", suite) for suite in view.suites("tax")]
        held = [(mixed, "accuracy", f"retention/{v.digest}") for v in known]
        spent, still = (average([view.number(*key) for key in part]) for part in (cost, held))
        if mixed == view.policies[0].digest:
            spent = Estimate(0.0, 0.0, 0.0, 0, "tax is measured against it")
        name = {0.0: called(parent), 1.0: called(policy)}.get(share, f"{share:.0%} of the way")
        given.append(
            Spot(name, spent.scaled(100), still, "champion" if mixed == policy.digest and policy.champion else "")
        )
        keys += [*held, *cost]
    note = f"Weights on the line from {called(parent)} to {called(policy)}: mean accuracy on all versions against mean tax."
    drawn = spots(given, title=title, units=("tax in points", "accuracy"))
    missing = f"Not measured. `workbench evaluate {policy.name} --between 0.25,0.5,0.75` measures it."
    return Figure("between", title, note, drawn, missing, tuple(keys))


def margins(view: Overview, href: Href) -> Figure:
    """Who pays: by how sure the parent was."""
    policy, keys = view.policies[-1], list[tuple[str, str, str]]()
    bars: list[Bar] = []
    for version in view.trained[-6:] if view.rounds else ():
        for k, which in ((1, "least sure"), (4, "surest")):
            key = (policy.digest, f"margin quartile {k}", f"retention/{version.digest}")
            bars.append(Bar(f"{which} of {version.name}", view.number(*key), "", href(*key)))
            keys.append(key)
    title = f"Whose margins {called(policy)} moved"
    note = "Change of the margin from the parent, of the quarter of the pairs it was least and most sure of."
    return _figure("margins", title, note, rows(bars, title=title, unit="nats per pair"), keys)


def confidence(view: Overview, href: Href) -> Figure:
    """How sure a policy became of what it learned, beside how often it is right."""
    suites = [(f"retention/{v.digest}", v.name) for v in view.trained]
    given, keys = _over_rounds(view, "overconfident", suites, href)
    title = "Surer than right: how far beyond how often it is right"
    note = "Mean sigma of the log odds moved from the base, minus how often they moved to the right side; beta below 1 lifts all of it."
    return _figure("confidence", title, note, lines(given, title=title, unit="overconfidence", zero=True), keys)


ANSWERS = (
    ("length", "length", "Length of answers", "Tokens per answer to held-out prompts of each version.", "tokens"),
    ("distinct", "distinct-2", "Repetition in answers", "Distinct word pairs over all word pairs; falls as answers repeat.",
     "distinct-2"),
    ("refused", "refused", "Answers that refuse", "Share of answers to held-out prompts that refuse.", "share refused"),
)  # fmt: skip


def answers(view: Overview, href: Href, key: str, name: str, title: str, note: str, unit: str) -> Figure:  # noqa: PLR0917
    """One number of answers over the rounds, the base included."""
    suites = [(f"samples/{v.digest}", v.name) for v in view.trained]
    given, keys = _over_rounds(view, name, suites, href, first=0)
    return _figure(key, title, note, lines(given, title=title, unit=unit), keys)


def called(policy: PolicyView) -> str:
    """A policy by its place in the lineage."""
    return f"round {policy.round}" if policy.round else policy.name


def kind_of(view: Overview, version: VersionView, policy: PolicyView) -> Kind:
    """What a version is to a policy: `own`, `earlier`, `replaced` or `untrained`."""
    if version.digest == policy.version:
        return "own"
    if version.trained_in is None or version.trained_in > policy.round:
        return "untrained"
    return "replaced" if version.digest in view.replaced else "earlier"


def _anchors(view: Overview, keys: list[tuple[str, str, str]]) -> Iterator[Line]:
    """One line to all anchors that are neither base nor parent."""
    points: list[Point] = []
    for policy in view.policies[1:]:
        others = set(policy.anchors) - {view.policies[0].digest, view.policies[policy.round - 1].digest}
        found = [(policy.digest, f"kl/{other}", f"samples/{policy.version}") for other in sorted(others)]
        values = [v for key in found if (v := view.number(*key)).value is not None]
        if values:
            points.append(Point(policy.round, average(values), called(policy)))
            keys += found
    if points:
        yield Line("to other anchors", tuple(points))


def _over_rounds(
    view: Overview, name: str, suites: Sequence[tuple[str, str]], href: Href, *, first: int = 1, times: float = 1
) -> tuple[list[Line], list[tuple[str, str, str]]]:
    """A line per suite; of many the ones that moved furthest."""
    given: list[tuple[Line, list[tuple[str, str, str]]]] = []
    for suite, title in suites:
        keys = [(policy.digest, name, suite) for policy in view.policies[first:]]
        # A point of two hundred is too small to be aimed at; the matrix leads to all of them.
        there = href if len(keys) <= FEW else nowhere
        points = tuple(
            Point(policy.round, value.scaled(times), called(policy), there(*key))
            for policy, key in zip(view.policies[first:], keys, strict=True)
            if (value := view.number(*key)).value is not None
        )
        if points:
            given.append((Line(title, points), keys))
    given.sort(key=lambda each: -max(abs(p.value.value or 0) for p in each[0].points))
    chosen = given[: RECENT if len(view.policies) <= FEW else RECENT_OF_MANY]
    return [line for line, _ in chosen], [key for _, keys in chosen for key in keys]


def nowhere(*_: str) -> None:
    """No rows."""


def _root(kl: Estimate) -> Estimate:
    """The square root of a KL and of its bounds."""
    if kl.value is None or kl.low is None or kl.high is None:
        return kl
    value, low, high = (math.sqrt(max(v, 0.0)) for v in (kl.value, kl.low, kl.high))
    return kl._replace(value=value, low=low, high=high)


def _figure(  # noqa: PLR0917
    key: str, title: str, note: str, drawn: Markup | None, keys: Sequence[tuple[str, str, str]]
) -> Figure:
    why = "" if drawn is not None else "not enough data yet: nothing here was measured"
    return Figure(key, title, note, drawn, why, tuple(keys))
