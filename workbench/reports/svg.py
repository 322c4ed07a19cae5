"""Scales, axes and elements of figures. A figure is a string of SVG: colours are classes, so that a page's theme decides."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

WIDTH = 640
COLOURS = 8
"""Classes `c0` to `c7`; beyond them they begin again, with another dash."""


def element(tag: str, *inside: Markup | str, **attributes: str | float | None) -> Markup:
    """An element. Text inside and values are escaped; attributes that are None are left out, `_` stands for `-`."""
    written = "".join(
        f' {name.strip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{written}>{''.join(escape(one) for one in inside)}</{tag}>")


def drawing(height: float, *inside: Markup, title: str) -> Markup:
    """A figure of the usual width; the title is what screen readers say. What holds links is no image to them."""
    role = "group" if any("<a " in one for one in inside) else "img"
    return element("svg", *inside, viewBox=f"0 0 {WIDTH} {height:g}", role=role, aria_label=title, class_="figure")


def linked(href: str | None, *inside: Markup) -> Markup:
    """What leads to rows, where there are any to lead to."""
    return element("a", *inside, href=href) if href else Markup("").join(inside)


class Scale(NamedTuple):
    """From numbers to places.

    Attributes:
        low, high: numbers at the ends.
        start, end: their places.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a number, kept inside."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def scale(values: Sequence[float], start: float, end: float, *, zero: bool = False) -> Scale:
    """A scale that holds all values with some room; with `zero` it holds 0, too."""
    kept = [*values, *([0.0] if zero else [])] or [0.0, 1.0]
    low, high = min(kept), max(kept)
    room = (high - low) * 0.06 or max(abs(high) * 0.1, 0.05)
    return Scale(low - room, high + room, start, end)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two numbers, at 1, 2 or 5 times a power of ten.

    >>> ticks(0.02, 0.97)
    [0.2, 0.4, 0.6, 0.8]
    """
    raw = (high - low) / most
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= raw)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [float(f"{k * step:.10g}") for k in range(first, last + 1)]


def across(at: Scale, top: float, bottom: float, *, title: str) -> Markup:
    """A horizontal axis with its grid, below a figure."""
    parts = [
        element("line", x1=at(v), x2=at(v), y1=top, y2=bottom, class_="zero" if v == 0 else "grid")
        for v in ticks(at.low, at.high)
    ]
    parts += [words(at(v), bottom + 15, f"{v:g}", anchor="middle") for v in ticks(at.low, at.high)]
    return Markup("").join([*parts, words((at.start + at.end) / 2, bottom + 32, title, anchor="middle", kind="axis")])


def upwards(at: Scale, left: float, right: float, *, title: str) -> Markup:
    """A vertical axis with its grid, left of a figure."""
    parts = [
        element("line", x1=left, x2=right, y1=at(v), y2=at(v), class_="zero" if v == 0 else "grid")
        for v in ticks(at.low, at.high)
    ]
    parts += [words(left - 6, at(v) + 4, f"{v:g}", anchor="end") for v in ticks(at.low, at.high)]
    return Markup("").join([*parts, words(left, 12, title, kind="axis")])


def words(x: float, y: float, said: str, *, anchor: str = "start", kind: str = "") -> Markup:
    """Text at a place."""
    return element("text", said, x=x, y=y, text_anchor=anchor, class_=kind or None)


def apart(places: Sequence[float], least: float) -> list[float]:
    """Places moved as little as needed to be so far apart, in their order.

    >>> apart([10, 12, 50], 10)
    [6.0, 16.0, 50.0]
    """
    order = sorted(range(len(places)), key=lambda k: places[k])
    blocks: list[tuple[list[int], float]] = []
    for k in order:
        block, centre = [k], float(places[k])
        while blocks and centre - least * (len(block) - 1) / 2 < blocks[-1][1] + least * (len(blocks[-1][0]) + 1) / 2:
            before, _ = blocks.pop()
            block = before + block
            centre = sum(places[i] for i in block) / len(block)
        blocks.append((block, centre))
    found = [0.0] * len(places)
    for block, centre in blocks:
        for place, k in enumerate(block):
            found[k] = centre + least * (place - (len(block) - 1) / 2)
    return found


def _plain(value: str | float) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
