"""What a click on a number of the drift page opens: the rows behind it, or the numbers that it is a mean of."""

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlencode

from fastapi import HTTPException

from ui.causes import Causes
from ui.shown import part
from workbench.drift.uncertainty import Estimate, said
from workbench.reports.figures import MEAN
from workbench.reports.story import Story
from workbench.reports.turned import QUARTERS
from workbench.tasks import suite_title
from workbench.views.inspection import Inspection, Overview
from workbench.views.numbers import OF_QUARTER, Kin, is_comparison, numbers_of_suite
from workbench.views.reading import Reader
from workbench.views.records import NOT_MEASURED
from workbench.views.rows import Found, Wanted, find_rows
from workbench.views.sentences import chance_of

AT_ONCE = 50
"""Rows of a page."""
LONGEST = 24
"""Characters of a name inside that of a number."""
AGAINST_BASE = ("tax", "from base", "overconfident", "above base")
"""Comparisons that are with the base where no baseline is pinned; others are with the parent."""
CALLED = {"from parent": "change of accuracy", "from base": "change of accuracy", "step tax": "tax",
          "overconfident": "overconfidence"}  # fmt: skip
"""Numbers whose name says what they are compared with, without that: a pinned baseline may stand for it."""
TO = {"kl": "KL to", "kl_back": "KL back from"}


class Cell(NamedTuple):
    """A number of a lineage that somebody opened; `after` is the round of its policy."""

    policy: str
    after: int
    name: str
    suite: str


def cell_link(view: Overview, key: tuple[str, str, str], against: str) -> str:
    """Where the rows behind a number of a lineage are."""
    policy, name, suite = key
    cell = f"{policy[:16]} {name} {suite}"
    return address(policy=view.policies[-1].digest[:16], cell=cell, within=view.slice, against=against) + "#rows"


def address(**asked: str) -> str:
    """An address of the page; what is empty is left out."""
    return f"?{urlencode({name: value for name, value in asked.items() if value})}"


def wanted_rows(inspection: Inspection, view: Overview, asked: Mapping[str, str]) -> Wanted:
    """The rows an address asks for.

    Raises:
        HTTPException: it names no number.
    """
    cell = _cell(view, asked["cell"])
    if cell.name == MEAN:
        raise HTTPException(404, f"{asked['cell']!r}: a mean has no rows of its own; open one of its numbers")
    if asked["against"]:
        against = inspection.places.registry.resolve(asked["against"]).digest
    else:
        against = view.policies[0 if cell.name in AGAINST_BASE else max(cell.after - 1, 0)].digest
    return Wanted(cell.policy, against, cell.name, cell.suite, view.condition or "", asked["within"], asked["turn"])


def opened(inspection: Inspection, causes: Causes, told: Story, asked: Mapping[str, str]) -> str:
    """What an address opens, as HTML.

    Raises:
        HTTPException: it names no number.
    """
    cell = _cell(told.view, asked["cell"])
    if cell.name == MEAN:
        return _behind(told, _called(inspection, told.view), cell, asked)
    wanted = wanted_rows(inspection, told.view, asked)
    start = int(asked["start"]) if asked["start"].isdecimal() else 0
    found = find_rows(inspection.places, wanted, start=start, count=AT_ONCE)
    between = wanted.policy in told.view.between.values()
    names, compared = _called(inspection, told.view), is_comparison(wanted.name)
    if compared and wanted.policy == wanted.against:
        value = "This is what others are compared with"
    else:
        value = said(_number(inspection, told.view, wanted, asked["against"]), signed=compared)
    return part("drift_parts.html", "rows")(
        found, wanted,
        {"policy": names.get(wanted.policy, ""), "against": names.get(wanted.against, ""), "value": value, "compared": compared,
         "number": number_name(wanted.name, names), "suite": _suite_name(wanted.suite, names),
         "quarter": wanted.name in OF_QUARTER, "turned": _turned(found) if wanted.policy != wanted.against else ""},
        {"start": start, "count": AT_ONCE, "query": {k: v for k, v in asked.items() if v and k not in {"turn", "start"}}},
        urlencode, "" if between else causes.shown(wanted, _against_parent(inspection, wanted, names, asked)), between,
    )  # fmt: skip


def _against_parent(
    inspection: Inspection, wanted: Wanted, names: Mapping[str, str], asked: Mapping[str, str]
) -> tuple[str, str] | None:
    """The parent, and where its comparison is, if the rows are compared with another: causes are of one round alone."""
    parent = inspection.places.registry.get(wanted.policy).parent
    if parent is None or parent == wanted.against:
        return None
    there = address(**{name: asked[name] for name in ("policy", "cell", "within")}, against=parent[:16])
    return names.get(parent, parent[:16]), f"/drift{there}#rows"


def _turned(found: Found) -> str:
    """How many turned each way and whether that may be chance; empty where nothing was compared that has two sides."""
    if found.pairs is None or not found.pairs.n:
        return ""
    b, c, n, _ = found.pairs
    return (
        f"b = {b} {found.words[0]}, c = {c} {found.words[1]}, n = {n}; McNemar's exact test: p {chance_of(found.pairs)}"
    )


def number_name(name: str, names: Mapping[str, str]) -> str:
    """What a number is called, whatever it is compared with."""
    kind, _, other = name.partition("/")
    if kind in TO:
        return f"{TO[kind]} {names.get(other, other)[:LONGEST]}"
    if quarter := OF_QUARTER.get(name):
        what = "change of margin" if name.startswith("margin") else "share lost"
        return f"{what} in the {QUARTERS[quarter - 1]} quarter"
    if kind.endswith(" from parent"):
        return f"change of {kind.removesuffix(' from parent')}"
    return f"{CALLED.get(kind, kind)} {other[:LONGEST]}".strip()


def _number(inspection: Inspection, view: Overview, wanted: Wanted, pinned: str) -> Estimate:
    """The number above the rows, of the same two policies as they are."""
    if not pinned or not is_comparison(wanted.name):
        return view.number(wanted.policy, wanted.name, wanted.suite)
    read = Reader(inspection.places.ledger, wanted.condition)
    if wanted.within:
        read = read.within(wanted.within)
    kin = Kin(wanted.against, wanted.against, wanted.policy)
    return numbers_of_suite(read, kin, wanted.suite).get(wanted.name, NOT_MEASURED)


def _behind(told: Story, names: Mapping[str, str], cell: Cell, asked: Mapping[str, str]) -> str:
    """The numbers that a point of a figure is a mean of, each of which opens its rows."""
    figure = next((one for one in told.figures if one.key == cell.suite), None)
    keys = [key for key in figure.numbers if key[0] == cell.policy] if figure else []
    if figure is None or not keys:
        raise HTTPException(404, f"{asked['cell']!r}: no point of a figure; open one from the page")
    rows = [
        (f"{number_name(name, names)} on {_suite_name(suite, names)}", said(told.view.number(policy, name, suite), signed=is_comparison(name)),
         cell_link(told.view, (policy, name, suite), asked["against"]))
        for policy, name, suite in keys
    ]  # fmt: skip
    closed = {name: value for name, value in asked.items() if value and name not in {"cell", "turn", "start"}}
    return part("drift_parts.html", "behind")(figure.title, names.get(cell.policy, ""), rows, address(**closed))


def _cell(view: Overview, asked: str) -> Cell:
    policy, _, rest = asked.partition(" ")
    name, _, suite = rest.rpartition(" ")
    known = {p.digest: p.round for p in view.policies} | dict.fromkeys(view.between.values(), view.rounds)
    found = [digest for digest in known if policy and digest.startswith(policy)]
    if len(found) != 1 or not name:
        raise HTTPException(404, f"{asked!r}: no number of this lineage; open one from the page")
    return Cell(found[0], known[found[0]], name, suite)


def _called(inspection: Inspection, view: Overview) -> dict[str, str]:
    """What people call versions, policies and what lies between two of them."""
    newest = view.policies[-1].name
    return inspection.names() | {p: f"{share:.0%} of the way to {newest}" for share, p in view.between.items()}


def _suite_name(suite: str, names: Mapping[str, str]) -> str:
    return names.get(suite.partition("/")[2], suite_title(suite)[:40])
