"""What a round turned, pair by pair: how many each way, whether that may be chance, and how sure of them was what came before."""

from collections.abc import Callable
from typing import NamedTuple

from workbench.drift.metrics import turned_of
from workbench.drift.uncertainty import Estimate, said
from workbench.reports.figures import MOST_ROWS, Href, kind_of
from workbench.views.inspection import Overview
from workbench.views.records import VersionView
from workbench.views.sentences import chance_of

QUARTERS = ("lowest", "second", "third", "highest")
"""Quarters of a version's pairs by the margin before: wrong then, or least sure of what is right, to surest."""


TURNED = (
    "Of the held-out pairs of each version b were right before and are wrong now, c the other way round; p is how often chance "
    "alone splits b + c at least as unevenly (McNemar's exact test, two-sided, pairs taken as independent). Lost: of each "
    "quarter of the pairs, by the margin they had before, the share that was right and is wrong now."
)
"""How to read it."""


class Quarter(NamedTuple):
    """What was lost of a quarter: how many of how many, the share with its interval, and where its rows are."""

    text: str
    told: str
    href: str | None


class Turns(NamedTuple):
    """What turned of one version's pairs.

    Attributes:
        change: of accuracy, with its interval; `href` leads to its rows.
        lost, gained: b and c, pairs of `n` that were right before and are wrong now, and the other way round; empty where
            they are not known.
        p: of McNemar's exact test.
        quarters: as in `QUARTERS`.
    """

    name: str
    change: str
    href: str | None
    lost: str
    gained: str
    n: str
    p: str
    quarters: tuple[Quarter, ...]


def turns(view: Overview, href: Href) -> tuple[Turns, ...]:
    """What the newest round turned, its own version first, then those that changed furthest; at most `MOST_ROWS`."""
    newest = view.policies[-1]

    def size(version: VersionView) -> tuple[bool, float]:
        change = view.number(newest.digest, "from parent", f"retention/{version.digest}")
        return kind_of(view, version, newest) != "own", -abs(change.value or 0)

    def told(version: VersionView) -> Turns:
        suite = f"retention/{version.digest}"
        return turns_of(version.name, lambda name: view.number(newest.digest, name, suite),
                        lambda name: href(newest.digest, name, suite))  # fmt: skip

    return tuple(map(told, sorted(view.trained, key=size)[:MOST_ROWS])) if view.rounds else ()


def turns_of(name: str, number: Callable[[str], Estimate], href: Callable[[str], str | None]) -> Turns:
    """What turned of one version.

    Args:
        name: what people call it.
        number: of the pairs, by its name in `views.numbers`.
        href: where the rows behind a number are.
    """
    change, pairs = number("from parent"), turned_of(number("lost"), number("gained"))
    quarters = tuple(_quarter(number(each), href(each)) for each in (f"lost quartile {k}" for k in range(1, 5)))
    b, c, n, p = (str(pairs.lost), str(pairs.gained), str(pairs.n), chance_of(pairs)) if pairs else ("",) * 4
    return Turns(name, said(change, signed=True), href("from parent"), b, c, n, p.removeprefix("= "), quarters)


def _quarter(lost: Estimate, href: str | None) -> Quarter:
    if lost.value is None:
        return Quarter("too few" if lost.n else "", said(lost), href if lost.n else None)
    return Quarter(f"{round(lost.value * lost.n)} of {lost.n}", said(lost), href)
