"""The forms figures have: lines over rounds, rows with intervals, spots between two numbers. All carry their intervals."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from markupsafe import Markup

from workbench.drift.uncertainty import Estimate, format_estimate
from workbench.reports.svg import (
    COLOURS,
    WIDTH,
    Scale,
    across,
    apart,
    drawing,
    element,
    linked,
    scale,
    ticks,
    upwards,
    words,
)

LEFT, RIGHT, TOP, BOTTOM = 52.0, 150.0, 22.0, 40.0
TALL = 250.0
FEW = 40
"""Up to so many rounds every interval is a bar of its own; beyond, they are a band."""
ROW = 22.0
LABEL = 26
"""Characters of a name."""


class Point(NamedTuple):
    """One number of a line; `href` leads to its rows."""

    x: float
    value: Estimate
    name: str
    href: str | None = None


class Line(NamedTuple):
    """Numbers of one thing, over rounds; the line breaks at a point without a number."""

    name: str
    points: tuple[Point, ...]


class Bar(NamedTuple):
    """One number with its name; `kind` is its class: `own`, `earlier`, `replaced`, `untrained` or empty."""

    name: str
    value: Estimate
    kind: str = ""
    href: str | None = None


class Spot(NamedTuple):
    """Two numbers of one thing, and what it is: `champion`, `update` or empty, and `front` if no other is better.

    A line leads through all that are joined, in their order.
    """

    name: str
    across: Estimate
    up: Estimate
    kind: str = ""
    href: str | None = None
    joined: bool = True


def lines(given: Sequence[Line], *, title: str, unit: str, zero: bool = False, xs: str = "round") -> Markup | None:
    """Lines over rounds, each with its name at its end; None where there is no number."""
    shown = [(line.name, runs) for line in given if (runs := _runs(line.points))]
    if not shown:
        return None
    known = [[p for run in runs for p in run] for _, runs in shown]
    up = scale([v for points in known for p in points for v in _ends(p.value)], TALL - BOTTOM, TOP, zero=zero)
    places = [p.x for points in known for p in points]
    least, most_x = min(places), max(places)
    at = Scale(least - 0.3, max(most_x, least + 1) + 0.3, LEFT, WIDTH - RIGHT)
    ends = apart([up(_middle(points[-1].value)) for points in known], 13.0)
    lower = max(0.0, TOP - 4 - min(ends))  # names of many lines above each other begin below the title
    ends = [end + lower for end in ends]
    most = max(len(points) for points in known)
    inside = [upwards(up, LEFT, WIDTH - RIGHT, title=unit), _whole(at, TALL - BOTTOM, xs)]
    inside += [_line(name, runs, (at, up), k, many=most > FEW) for k, (name, runs) in enumerate(shown)]
    inside += [
        words(WIDTH - RIGHT + 10, end + 4, cut(name, 22), kind=f"name c{k % COLOURS}")
        for k, ((name, _), end) in enumerate(zip(shown, ends, strict=True))
    ]
    return drawing(TALL, *inside, title=title)


def rows(given: Sequence[Bar], *, title: str, unit: str, mark: float | None = None) -> Markup | None:
    """One row per number: its name, a dot and its interval around zero; None where there is none.

    Args:
        given: from top to bottom; those without a number say so.
        title: what is shown, for those who do not see it.
        unit: below the axis.
        mark: a threshold.
    """
    known = [v for bar in given if _known(bar.value) for v in _ends(bar.value)]
    if not given:
        return None
    left, bottom = 190.0, 8 + ROW * len(given)
    at = scale([*known, *([] if mark is None else [mark])], left, WIDTH - 20.0, zero=True)
    inside = [across(at, 4, bottom, title=unit)]
    if mark is not None:
        inside.append(element("line", x1=at(mark), x2=at(mark), y1=4, y2=bottom, class_="threshold"))
    for k, bar in enumerate(given):
        y = 8 + ROW * (k + 0.5)
        name = words(left - 10, y + 4, cut(bar.name, LABEL), anchor="end")
        inside.append(linked(bar.href, name, _row(bar, at, y)))
    return drawing(bottom + 40, *inside, title=title)


def spots(given: Sequence[Spot], *, title: str, units: tuple[str, str]) -> Markup | None:
    """Things between two numbers; None where fewer than two have both."""
    shown = [s for s in given if _known(s.across) and _known(s.up)]
    if len(shown) < 2:
        return None
    many = len(shown) > FEW
    at = scale(
        [v for s in shown for v in (_middle(s.across), *(() if many else _ends(s.across)))],
        LEFT,
        WIDTH - 30.0,
        zero=True,
    )
    up = scale([v for s in shown for v in (_middle(s.up), *(() if many else _ends(s.up)))], TALL - BOTTOM, TOP)
    inside = [across(at, TOP, TALL - BOTTOM, title=units[0]), upwards(up, LEFT, WIDTH - 30.0, title=units[1])]
    places = [(at(_middle(s.across)), up(_middle(s.up))) for s in shown]
    if len(path := [place for spot, place in zip(shown, places, strict=True) if spot.joined]) > 1:
        inside.append(_path(path, "path c0"))
    for k, (spot, (x, y)) in enumerate(zip(shown, places, strict=True)):
        told = f"{spot.name}: {units[1]} {format_estimate(spot.up)}; {units[0]} {format_estimate(spot.across)}"
        bars = () if many else (_span(at, spot.across, y, flat=True), _span(up, spot.up, x, flat=False))
        dot = element(
            "circle", element("title", told), cx=x, cy=y, r=4 if not many else 3, class_=f"dot {spot.kind or 'c0'}"
        )
        labelled = not many or k in {0, len(shown) - 1} or spot.kind
        anchor = "end" if x > WIDTH - 130 else "start"
        name = (
            (words(x + (7 if anchor == "start" else -7), y - 6, cut(spot.name, 16), anchor=anchor),) if labelled else ()
        )
        inside.append(linked(spot.href, *bars, dot, *name))
    return drawing(TALL, *inside, title=title)


def cut(name: str, most: int) -> str:
    """A name that fits."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _runs(points: Sequence[Point]) -> list[list[Point]]:
    """Points that follow each other, all with a number."""
    return [list(run) for known, run in groupby(points, lambda p: _known(p.value)) if known]


def _line(name: str, runs: Sequence[Sequence[Point]], scales: tuple[Scale, Scale], k: int, *, many: bool) -> Markup:
    at, up = scales
    colour, dashed = f"c{k % COLOURS}", "dashed" if k // COLOURS % 2 else ""
    parts: list[Markup] = []
    # Of hundreds of points some can be pointed at; all are in the line, its band and the file of numbers.
    step = -(-sum(map(len, runs)) // FEW)
    for run in runs:
        places = [(at(p.x), up(_middle(p.value))) for p in run]
        if many:
            parts.append(_band(run, at, up, colour))
        parts.append(_path(places, f"path {colour} {dashed}".strip()))
        for point, (x, y) in [*zip(run, places, strict=True)][::step]:
            told = element("title", f"{name}, {point.name}: {format_estimate(point.value, digits=3)}")
            dot = element("circle", told, cx=x, cy=y, r=2 if many else 3.5, class_=f"dot {colour}")
            bar = () if many else (_span(up, point.value, x, flat=False, colour=colour),)
            parts.append(linked(point.href, *bar, dot))
    return Markup("").join(parts)


def _band(run: Sequence[Point], at: Scale, up: Scale, colour: str) -> Markup:
    above = [(at(p.x), up(_ends(p.value)[1])) for p in run]
    below = [(at(p.x), up(_ends(p.value)[0])) for p in reversed(run)]
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in (*above, *below))
    return element("polygon", points=places, class_=f"band {colour}")


def _path(places: Sequence[tuple[float, float]], kind: str) -> Markup:
    return element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places), class_=kind)


def _row(bar: Bar, at: Scale, y: float) -> Markup:
    told = element("title", f"{bar.name}: {format_estimate(bar.value, digits=3, signed=True)}")
    if not _known(bar.value):
        why = f"not enough data (n={bar.value.n})" if bar.value.n else "not measured"
        return element("g", told, words(at(0) + 8, y + 4, why, kind="missing"))
    kind = f"{direction(bar.value)} {bar.kind}".strip()
    return element(
        "g", told, _span(at, bar.value, y, flat=True, colour=kind),
        element("circle", cx=at(_middle(bar.value)), cy=y, r=4, class_=f"dot {kind}"),
    )  # fmt: skip


def direction(value: Estimate) -> str:
    """`up` or `down` where the interval leaves out zero, else `level`."""
    if value.low is not None and value.low > 0:
        return "up"
    return "down" if value.high is not None and value.high < 0 else "level"


def _span(along: Scale, value: Estimate, place: float, *, flat: bool, colour: str = "") -> Markup:
    low, high = (along(v) for v in _ends(value))
    ends = (
        {"x1": low, "x2": high, "y1": place, "y2": place} if flat else {"x1": place, "x2": place, "y1": low, "y2": high}
    )
    return element("line", **ends, class_=f"span {colour}".strip())


def _whole(at: Scale, bottom: float, title: str) -> Markup:
    """A horizontal axis of rounds or steps: whole numbers."""
    marks = [x for x in ticks(at.low, at.high, most=12) if x == int(x) and x >= 0]
    named = [words(at(x), bottom + 15, f"{x:g}", anchor="middle") for x in marks]
    return Markup("").join([*named, words((at.start + at.end) / 2, bottom + 32, title, anchor="middle", kind="axis")])


def _known(value: Estimate) -> bool:
    return value.value is not None


def _middle(value: Estimate) -> float:
    assert value.value is not None
    return value.value


def _ends(value: Estimate) -> tuple[float, float]:
    assert value.low is not None
    assert value.high is not None
    return value.low, value.high
