"""The retention matrix as a table: numbers that can be read, copied and reached by keyboard, and colours to see by."""

from typing import NamedTuple

from workbench.drift.metrics import turned_of
from workbench.drift.uncertainty import Estimate, format_estimate
from workbench.reports.figures import Href, kind_of, nowhere
from workbench.tasks import suite_title
from workbench.views.inspection import SHOULD, Overview
from workbench.views.records import PolicyView
from workbench.views.sentences import pairs_turned

SHADES = 9
"""Classes `s0` (lowest) to `s9`."""
NARROW = 24
"""Beyond so many columns cells are too narrow for numbers; they keep their colour and are told when pointed at."""


class Square(NamedTuple):
    """One cell.

    Attributes:
        text: what is written in it.
        shade: its class; empty where nothing was measured.
        kind: what the version, or suite, is to the policy.
        told: all that is known, in words.
    """

    text: str
    shade: str
    kind: str
    told: str
    href: str | None


class Row(NamedTuple):
    """One version or suite, over all policies; `number` of `suite` is what its cells show."""

    name: str
    suite: str
    number: str
    cells: tuple[Square, ...]


class Grid(NamedTuple):
    """The matrix: a column per policy; a row per version, then one per capability suite, then what is refused of probes."""

    columns: tuple[PolicyView, ...]
    rows: tuple[Row, ...]
    narrow: bool


def grid(view: Overview, href: Href) -> Grid:
    """R, the tax and the refusals of a lineage: accuracy on held-out pairs of each version, capability against the base."""
    if len(view.policies) > NARROW:
        href = nowhere  # where cells are, not links in them, says what to open
    narrow, measured = len(view.policies) > NARROW, set(view.suites("accuracy"))
    found = [
        Row(version.name, f"retention/{version.digest}", "accuracy", tuple(
            _retention(view, policy, f"retention/{version.digest}", (version.name, kind_of(view, version, policy)), href)
            for policy in view.policies
        ))
        for version in view.distinct
        if version.trained_in is not None or f"retention/{version.digest}" in measured
    ]  # fmt: skip
    found += [
        Row(suite_title(suite), suite, "tax", tuple(_capability(view, policy, suite, href) for policy in view.policies))
        for suite in view.suites("level")
    ]
    found += [
        Row(f"refused, should {should}", suite, number, tuple(
            _refusals(view, policy, (number, suite), href) for policy in view.policies
        ))
        for number, should in SHOULD.items()
        for suite in view.suites(number)
    ]  # fmt: skip
    return Grid(view.policies, tuple(found), narrow)


def _retention(view: Overview, policy: PolicyView, suite: str, about: tuple[str, str], href: Href) -> Square:  # noqa: PLR0917
    name, kind = about
    key = (policy.digest, "accuracy", suite)
    value, change = view.number(*key), view.number(policy.digest, "from parent", suite)
    aside = " (answered its prompts afresh)" if kind == "own" and policy.online else _ASIDE[kind]
    told = [f"{policy.name} on {name}{aside}: accuracy {_said(value)}"]
    if policy.round:
        told.append(f"from parent {_said(change, signed=True)}")
    # Known of the newest rounds; the rows of any other cell say it.
    if found := turned_of(*(view.number(policy.digest, name, suite) for name in ("lost", "gained"))):
        told.append(pairs_turned(found))
    text = "" if value.value is None else f"{100 * value.value:.0f}"
    fallen = _fell(change) if kind == "earlier" else ""
    return Square(text, _shade(value, 0.5, 1.0), kind + fallen, "; ".join(told), href(*key) if text else None)


def _capability(view: Overview, policy: PolicyView, suite: str, href: Href) -> Square:
    level, tax, step = (view.number(policy.digest, name, suite) for name in ("level", "tax", "step tax"))
    told = f"{policy.name} on {suite_title(suite)}: {_said(level)}"
    if not policy.round:
        known = level.value is not None
        return Square("0" if known else "", "", "base", told, href(policy.digest, "tax", suite) if known else None)
    text = "" if tax.value is None else f"{100 * tax.value:+.1f}"
    told += f"; tax against the base {_said(tax, signed=True)}, against the parent {_said(step, signed=True)}"
    shade = _shade(tax.scaled(-1), -0.05, 0.05)
    kind = f"suite{_fell(step.scaled(-1))}"
    return Square(text, shade, kind, told, href(policy.digest, "tax", suite) if text else None)


def _refusals(view: Overview, policy: PolicyView, about: tuple[str, str], href: Href) -> Square:
    """Share of probes refused; its shade is that of the share treated as it should be."""
    number, suite = about
    value = view.number(policy.digest, number, suite)
    change = view.number(policy.digest, f"{number} from parent", suite)
    told = f"{policy.name} on probes it should {SHOULD[number]}: refused {_said(value)}"
    if policy.round:
        told += f"; from parent {_said(change, signed=True)}"
    text = "" if value.value is None else f"{100 * value.value:.0f}"
    # Of probes that should be answered fewer refused are better: shade and mark are turned.
    sign, ends = (1, (0.5, 1.0)) if SHOULD[number] == "refuse" else (-1, (-0.5, 0.0))
    shade, kind = _shade(value.scaled(sign), *ends), f"suite{_fell(change.scaled(sign))}"
    return Square(text, shade, kind, told, href(policy.digest, number, suite) if text else None)


def _fell(change: Estimate) -> str:
    """The mark of what is for certain worse than the parent's."""
    return " fell" if change.high is not None and change.high < 0 else ""


_ASIDE = {
    "own": " (trained on it)",
    "earlier": "",
    "replaced": " (replaced since)",
    "untrained": " (not trained on yet)",
}


def _said(value: Estimate, *, signed: bool = False) -> str:
    if value.value is None and not value.n:
        return "not measured"
    return format_estimate(value, signed=signed)


def _shade(value: Estimate, low: float, high: float) -> str:
    if value.value is None:
        return ""
    share = (min(max(value.value, low), high) - low) / (high - low)
    return f"s{round(share * SHADES)}"
