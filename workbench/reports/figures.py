"""The figures of a lineage: what each shows, drawn, with the numbers behind it."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from workbench.drift.uncertainty import Estimate, average
from workbench.reports.charts import FEW, Bar, Line, Point, Spot
from workbench.reports.figure import Figure, Said, of_lines, of_rows, of_spots
from workbench.tasks import suite_title
from workbench.views.inspection import Overview
from workbench.views.kept import Key
from workbench.views.records import PolicyView, VersionView

Kind = Literal["own", "earlier", "replaced", "untrained"]
Href = Callable[[str, str, str], str | None]
"""Where the rows behind a number are: by policy, name and suite; None where nothing can be opened."""

MEAN = "figure"
"""Stands for the name of a number where a point of a figure is made of several; the key of the figure is then the suite."""
RECENT, RECENT_OF_MANY = 12, 6
"""Lines of a figure at most, over few rounds and over many; the note says of how many."""
MOST_ROWS = 20
"""Rows of a figure at most: its own version and the ones that moved furthest."""
MOST_VERSIONS = 6
"""Versions whose margins are drawn."""
MOST_NAMED = 6
"""Names in a note."""
WORSE = {"tax": 1, "overconfident": 1, "refused": 1, "distinct-2": -1}
"""Which way a number becomes worse; of one that is not here neither way is."""


def figures(view: Overview, href: Href) -> Iterator[Figure]:
    """All figures of a lineage, in the order people ask."""
    yield newest(view, href)
    yield kept(view, href)
    yield taxes(view, href)
    yield from (divergences(view, href, said) for said in (FORWARD, BACK))
    yield from (make(view, href) for make in (frontier, pareto, line))
    yield margins(view, href)
    yield confidence(view, href)
    yield from (answers(view, href, *each) for each in ANSWERS)


def newest(view: Overview, href: Href) -> Figure:
    """What the last round did to every version."""
    policy, keys = view.policies[-1], list[Key]()
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
    note += _answered(view.policies[-1:])
    return of_rows(("newest", title, note), bars, keys, "change of accuracy")


def kept(view: Overview, href: Href) -> Figure:
    """How much of what was taught is still there, over the rounds."""
    there, taught = _aimed_at(view, href), list[Point]()
    new: list[Point] = []
    keys: list[Key] = []
    for policy in view.policies[1:]:
        gone = view.replaced_by[policy.round]
        before = [v for v in view.trained if (v.trained_in or 0) < policy.round and v.digest not in gone
                  and v.digest != policy.version]  # fmt: skip
        found = [(policy.digest, "accuracy", f"retention/{v.digest}") for v in before]
        if before:
            taught.append(_mean_point(view, policy, found, figure="kept", href=there))
        own = (policy.digest, "accuracy", f"retention/{policy.version}")
        new.append(Point(policy.round, view.number(*own), called(policy), there(*own)))
        keys += [*found, own]
    given = [Line("earlier versions", tuple(taught)), Line("its own version", tuple(new))]
    note = "Mean accuracy on all versions of earlier rounds that were not replaced by then, and on the version of the round itself."
    note += _answered(view.policies)
    return of_lines(("kept", "How much is still known of what was taught", note), given, keys, "accuracy")


def taxes(view: Overview, href: Href) -> Figure:
    """Capability lost against the base."""
    suites = [(s, suite_title(s)) for s in view.suites("tax")]
    given, keys, left = _over_rounds(view, "tax", suites, href, times=100)
    title = "Alignment tax: capability lost against the base, in points"
    note = f"Above zero is lost. Accuracy suites in points, text in percent of the base's bits.{left}"
    return of_lines(("tax", title, note), given, keys, "points lost", zero=True)


FORWARD: Said = (
    "kl", "How far it moved: KL on its own answers",
    "KL(policy ‖ other) in nats per token, to its base, its parent and each other anchor; old prompts are those of earlier rounds.",
)  # fmt: skip
BACK: Said = (
    "kl_back", "How far from there to it: KL back, on its own answers",
    "KL(other ‖ policy) in nats per token at the same positions of the policy's own answers: large where it gave up what the other would say.",
)  # fmt: skip


def divergences(view: Overview, href: Href, said: Said = FORWARD) -> Figure:
    """How far each policy moved, from every policy it was held to: KL to that, or from that."""
    way, title, note = said
    found: list[tuple[Line, list[Key]]] = []
    for name, others in _held_to(view):
        for prompts in ("new", "old"):
            points: list[Point] = []
            keys: list[Key] = []
            for policy, other in zip(view.policies[1:], others, strict=True):
                there = _kl_keys(view, policy, f"{way}/{other}", new=prompts == "new")
                points.append(_mean_point(view, policy, there, figure=way, href=href))
                keys += there
            found.append((Line(f"{name}, {prompts} prompts", tuple(points)), keys))
    further = [each for each in found[4:] if each[1]]
    chosen, left = _furthest(view, further, ("lines to other anchors", 0), start=False)
    drawn = [*found[:4], *chosen]
    every = [key for _, part in drawn for key in part]
    return of_lines((way, title, note + left), [one for one, _ in drawn], every, "nats per token", zero=True)


def frontier(view: Overview, href: Href) -> Figure:
    """What was gained for the distance moved."""
    there, given, keys = _aimed_at(view, href), list[Spot](), list[Key]()
    for policy in view.policies[1:]:
        moved = (policy.digest, f"kl/{view.policies[0].digest}", f"samples/{policy.version}")
        gained = (policy.digest, "from base", f"retention/{policy.version}")
        keys += [moved, gained]
        kind = "champion" if policy.champion else ""
        spot = Spot(called(policy), _root(view.number(*moved)), view.number(*gained), kind, joined=False)
        given.append(spot._replace(href=there(policy.digest, MEAN, "frontier")))
    title = "What a round gained for how far it moved from the base"
    note = f"Gain on its own version against the square root of the KL to the base (axes of arXiv 2210.10760).{_answered(view.policies)}"
    return of_spots(("frontier", title, note), given, keys, ("square root of KL to base", "gain of accuracy"))


def pareto(view: Overview, href: Href) -> Figure:
    """What is known of all versions, against what it cost: all policies on the same versions and suites."""
    last = view.policies[-1]
    made, taught = view.policies[1:], [v for v in view.trained if v.digest not in view.replaced]
    versions = [v for v in taught if _has(view, last, "accuracy", f"retention/{v.digest}")]
    policies = [p for p in made if any(_has(view, p, "tax", suite) for suite in view.suites("tax"))
                and all(_has(view, p, "accuracy", f"retention/{v.digest}") for v in versions)]  # fmt: skip
    suites = [suite for suite in view.suites("tax") if all(_has(view, p, "tax", suite) for p in policies)]
    there, given, keys = _aimed_at(view, href), list[Spot](), list[Key]()
    for policy in made:
        cost = [(policy.digest, "tax", suite) for suite in suites]
        known = [(policy.digest, "accuracy", f"retention/{v.digest}") for v in versions]
        mark = "champion" if policy.champion else "update" if policy.update else ""
        spent, held = (average([view.number(*key) for key in part]) for part in (cost, known))
        given.append(Spot(called(policy), spent.scaled(100), held, mark, there(policy.digest, MEAN, "pareto")))
        keys += [*known, *cost]
    note = (
        f"Mean accuracy on {_count(len(versions), 'version')} against mean tax of {_count(len(suites), 'suite')}, the same for "
        "every policy: up and left is better. Ringed and joined: no other is better on one without being worse on the other, as estimated."
    )
    missing = [p for p in made if p not in policies]
    note += _without([called(p) for p in missing], "not measured on all of these")
    if missing:
        note += f" `workbench evaluate {missing[-1].name} --settings FILE`, with the settings of the round, adds that policy."
    note += _without([v.name for v in taught if v not in versions], f"not measured of {called(last)}")
    note += _without([suite_title(s) for s in view.suites("tax") if s not in suites], "not measured of all policies")
    said = ("pareto", "Gain against tax, policy by policy", note)
    return of_spots(said, _best(given), keys, ("tax in points", "accuracy"),
                     why="not enough data yet: fewer than two policies were measured on the same versions and suites")  # fmt: skip


def line(view: Overview, href: Href) -> Figure:
    """What a smaller step than the last round's would have kept and cost."""
    title, keys, units = "What a smaller step would have kept and cost", list[Key](), ("tax in points", "accuracy")
    if not view.rounds:
        return of_spots(("between", title, ""), [], [], units, why="There is no round yet.")
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
        mark = "champion" if mixed == policy.digest and policy.champion else ""
        given.append(Spot(name, spent.scaled(100), still, mark, href(mixed, MEAN, "between")))
        keys += [*held, *cost]
    note = f"Weights on the line from {called(parent)} to {called(policy)}: mean accuracy on all versions against mean tax."
    missing = f"Not measured. `workbench evaluate {policy.name} --between 0.25,0.5,0.75` measures it."
    return of_spots(("between", title, note), given, keys, units, why=missing)


def margins(view: Overview, href: Href) -> Figure:
    """Who pays: by the margin the parent had."""
    policy, keys = view.policies[-1], list[Key]()
    bars: list[Bar] = []
    for version in view.trained[-MOST_VERSIONS:]:
        for k, which in ((1, "lowest"), (4, "highest")):
            key = (policy.digest, f"margin quartile {k}", f"retention/{version.digest}")
            bars.append(Bar(f"{which} of {version.name}", view.number(*key), "", href(*key)))
            keys.append(key)
    title = f"Whose margins {called(policy)} moved"
    note = ("Change of the margin from the parent, of the quarter of the pairs whose margin was lowest there (where it was wrong, "
            "or least sure) and of the quarter where it was highest.")  # fmt: skip
    if len(view.trained) > MOST_VERSIONS:
        note += f" The last {MOST_VERSIONS} of {len(view.trained)} versions."
    return of_rows(("margins", title, note), bars, keys, "nats per pair")


def confidence(view: Overview, href: Href) -> Figure:
    """How sure a policy became of what it learned, beside how often it is right."""
    suites = [(f"retention/{v.digest}", v.name) for v in view.trained]
    given, keys, left = _over_rounds(view, "overconfident", suites, href)
    title = "Surer than right: how far beyond how often it is right"
    note = f"Mean sigma of the log odds moved from the base, minus how often they moved to the right side; beta below 1 lifts all of it.{left}"
    return of_lines(("confidence", title, note), given, keys, "overconfidence", zero=True)


ANSWERS = (
    ("length", "length", "Length of answers", "Tokens per answer to held-out prompts of each version.", "tokens"),
    ("distinct", "distinct-2", "Repetition in answers", "Distinct word pairs over all word pairs; falls as answers repeat.",
     "distinct-2"),
    ("refused", "refused", "Answers that refuse", "Share of answers to held-out prompts that refuse.", "share refused"),
)  # fmt: skip


def answers(view: Overview, href: Href, key: str, name: str, title: str, note: str, unit: str) -> Figure:  # noqa: PLR0917
    """One number of answers over the rounds, the base included."""
    suites = [(f"samples/{v.digest}", v.name) for v in view.trained]
    given, keys, left = _over_rounds(view, name, suites, href, first=0)
    return of_lines((key, title, note + left), given, keys, unit)


def called(policy: PolicyView) -> str:
    """A policy by its place in the lineage."""
    return f"round {policy.round}" if policy.round else policy.name


def kind_of(view: Overview, version: VersionView, policy: PolicyView) -> Kind:
    """What a version was to a policy when that was made: `own`, `earlier`, `replaced` or `untrained`."""
    if version.digest == policy.version:
        return "own"
    if version.trained_in is None or version.trained_in > policy.round:
        return "untrained"
    return "replaced" if version.digest in view.replaced_by[policy.round] else "earlier"


def nowhere(*_: str) -> None:
    """No rows."""


def _answered(policies: Sequence[PolicyView]) -> str:
    """What a note says of rounds that learned from their own answers; nothing where there are none."""
    names = [called(policy) for policy in policies if policy.online]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return (
        f" Fresh answers to its own version's prompts, not its pairs, taught {', '.join(names[:MOST_NAMED])}{more}."
        if names
        else ""
    )


def _held_to(view: Overview) -> Iterator[tuple[str, list[str]]]:
    """Base, parent, then every other anchor: the name, and by round the digest, empty where it was none of its anchors."""
    base, rounds = view.policies[0].digest, view.policies[1:]
    parents = [p.digest for p in view.policies[:-1]]
    yield "base", [base] * len(rounds)
    yield "parent", parents
    names = {p.digest: called(p) for p in view.policies}
    for other in dict.fromkeys(anchor for p in rounds for anchor in p.anchors if anchor != base):
        held = [
            other if other in p.anchors and other != parent else "" for p, parent in zip(rounds, parents, strict=True)
        ]
        yield names.get(other, other[:8]), held


def _kl_keys(view: Overview, policy: PolicyView, name: str, *, new: bool) -> list[Key]:
    """What was measured of a policy's KL, `kl/` or `kl_back/` with the other one, on prompts of its own version, or of those of earlier rounds."""
    suites = [f"samples/{v.digest}" for v in view.trained if (v.digest == policy.version) is new
              and (v.trained_in or 0) <= policy.round]  # fmt: skip
    return [(policy.digest, name, suite) for suite in suites if _has(view, policy, name, suite)]


def _aimed_at(view: Overview, href: Href) -> Href:
    """Where points lead; one of two hundred is too small to be aimed at, and the matrix leads to all of them."""
    return href if view.rounds <= FEW else nowhere


def _mean_point(view: Overview, policy: PolicyView, keys: Sequence[Key], *, figure: str, href: Href) -> Point:
    """A mean over suites; it opens what it is made of, which may be rows."""
    known = [key for key in keys if view.number(*key).value is not None]
    there = (policy.digest, MEAN, figure) if len(known) > 1 else known[0] if known else None
    value = average([view.number(*key) for key in keys])
    return Point(policy.round, value, called(policy), href(*there) if there else None)


def _has(view: Overview, policy: PolicyView, name: str, suite: str) -> bool:
    return view.number(policy.digest, name, suite).value is not None


def _best(given: Sequence[Spot]) -> list[Spot]:
    """By cost; those that no other beats are marked, the others are not joined. Those that lack a number come last, unmarked."""
    known = [spot for spot in given if spot.across.value is not None and spot.up.value is not None]
    places = [(spot.across.value or 0.0, -(spot.up.value or 0.0)) for spot in known]
    found: list[Spot] = []
    for (cost, loss), spot in sorted(zip(places, known, strict=True), key=lambda each: each[0]):
        beaten = any(c <= cost and n <= loss and (c, n) != (cost, loss) for c, n in places)
        found.append(spot._replace(joined=False) if beaten else spot._replace(kind=f"{spot.kind or 'c0'} front"))
    return found + [spot for spot in given if spot not in known]


def _over_rounds(
    view: Overview, name: str, suites: Sequence[tuple[str, str]], href: Href, *, first: int = 1, times: float = 1
) -> tuple[list[Line], list[Key], str]:
    """A line per suite, the numbers behind them, and what a note says of suites that are not drawn."""
    given: list[tuple[Line, list[Key]]] = []
    for suite, title in suites:
        keys = [(policy.digest, name, suite) for policy in view.policies[first:]]
        there = _aimed_at(view, href)
        points = tuple(
            Point(policy.round, view.number(*key).scaled(times), called(policy), there(*key))
            for policy, key in zip(view.policies[first:], keys, strict=True)
        )
        if any(point.value.value is not None for point in points):
            given.append((Line(title, points), keys))
    what = "suites" if name == "tax" else "versions"
    chosen, left = _furthest(view, given, (what, WORSE.get(name, 0)), start=first == 0)
    return [line for line, _ in chosen], [key for _, keys in chosen for key in keys], left


def _furthest(
    view: Overview, given: Sequence[tuple[Line, list[Key]]], kind: tuple[str, int], *, start: bool
) -> tuple[Sequence[tuple[Line, list[Key]]], str]:
    """The lines that are drawn of many, and what a note says of that: those that became worse for certain come first.

    Args:
        view: the lineage.
        given: lines with the numbers behind them; each has a number.
        kind: what they are, and which way they become worse.
        start: whether their first number is the base's; numbers of others are changes from it.
    """
    what, worse = kind
    most = RECENT if len(view.policies) <= FEW else RECENT_OF_MANY
    ordered = sorted(given, key=lambda each: _rank(each[0], worse, start=start))
    if len(given) <= most:
        return ordered, ""
    first = "those that became worse for certain, then " if worse else ""
    return ordered[:most], f" {most} of {len(given)} {what}: {first}those that moved furthest since the base."


def _rank(line: Line, worse: int, *, start: bool) -> tuple[bool, float]:
    known = [point.value for point in line.points if point.value.value is not None]
    before, now = known[0] if start else Estimate(0.0, 0.0, 0.0, 0, "the base itself"), known[-1]
    if worse < 0:
        fell = (now.high or 0.0) < (before.low or 0.0)
    else:
        fell = worse > 0 and (now.low or 0.0) > (before.high or 0.0)
    return not fell, -abs((now.value or 0.0) - (before.value or 0.0))


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _without(names: Sequence[str], why: str) -> str:
    """What a note says of what is missing."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f" Without {', '.join(names[:MOST_NAMED])}{more}: {why}." if names else ""


def _root(kl: Estimate) -> Estimate:
    """The square root of a KL and of its bounds."""
    if kl.value is None or kl.low is None or kl.high is None:
        return kl
    value, low, high = (math.sqrt(max(v, 0.0)) for v in (kl.value, kl.low, kl.high))
    return kl._replace(value=value, low=low, high=high)
