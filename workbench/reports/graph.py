"""The lineage as a graph: a column per round from the base, a lane per branch, rounds that failed below their parent."""

import json
from collections.abc import Callable, Sequence

from markupsafe import Markup

from workbench.reports.charts import cut
from workbench.reports.svg import element, linked, words
from workbench.rounds.journal import RoundRecord
from workbench.views.inspection import Branch

STEP, LANE = 92.0, 46.0
DENSE = 20
"""Beyond so many rounds in a line, columns are narrow and only some are named."""


def graph(
    branches: Sequence[Branch], shown: str, href: Callable[[str], str], childless: Sequence[RoundRecord] = ()
) -> Markup:
    """The graph.

    Args:
        branches: all policies, oldest first.
        shown: digest of the policy whose lineage is looked at.
        href: where a policy is looked at.
        childless: rounds that made no policy (yet); they hang below the policy they started from.
    """
    lanes = _lanes(branches)
    deepest = max((b.depth for b in branches), default=0)
    dense = deepest > DENSE
    step = STEP if not dense else max(10.0, 1200.0 / deepest)
    places = {b.policy.digest: (46 + b.depth * step, 26 + lanes[b.policy.digest] * LANE) for b in branches}
    parents = {b.policy.digest: b.policy.parent for b in branches}
    line: set[str] = set()
    at: str | None = shown
    while at is not None and at not in line:
        line.add(at)
        at = parents.get(at)
    inside = [_edge(places, b, line) for b in branches if b.policy.parent in places]
    inside += [_node(b, places[b.policy.digest], line, shown, href, named=not dense) for b in branches]
    inside += _stumps(places, childless)
    width, height = 80 + deepest * step + 60, 26 + (max(lanes.values(), default=0) + 1) * LANE
    return element(
        "svg", *inside, viewBox=f"0 0 {width:.0f} {height:.0f}", width=f"{width:.0f}", height=f"{height:.0f}",
        class_="graph", role="group", aria_label=f"{len(branches)} policies and what they descend from",
    )  # fmt: skip


def _lanes(branches: Sequence[Branch]) -> dict[str, int]:
    """A lane for each policy: the newest child goes on in its parent's, others get one of their own."""
    children: dict[str | None, list[str]] = {}
    for branch in branches:
        children.setdefault(branch.policy.parent, []).append(branch.policy.digest)
    lanes: dict[str, int] = {}
    free = 0
    for branch in branches:
        digest, parent = branch.policy.digest, branch.policy.parent
        if parent in lanes and children[parent][-1] == digest:
            lanes[digest] = lanes[parent]
        else:
            lanes[digest] = free
            free += 1
    return lanes


def _edge(places: dict[str, tuple[float, float]], branch: Branch, line: set[str]) -> Markup:
    (x1, y1), (x2, y2) = places[str(branch.policy.parent)], places[branch.policy.digest]
    bend = (x1 + x2) / 2
    kind = "edge on" if branch.policy.digest in line else "edge"
    return element(
        "path", d=f"M{x1:.1f} {y1:.1f}C{bend:.1f} {y1:.1f} {bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}", class_=kind
    )


def _node(  # noqa: PLR0917
    branch: Branch, place: tuple[float, float], line: set[str], shown: str, href: Callable[[str], str], *, named: bool
) -> Markup:
    x, y = place
    policy, state = branch.policy, branch.state
    told = f"{policy.name}: {state}{', champion' if branch.champion else ''}"
    kinds = ["node", state, *(["champion"] if branch.champion else []), *(["on"] if policy.digest in line else []),
             *(["shown"] if policy.digest == shown else [])]  # fmt: skip
    parts = [element("circle", element("title", told), cx=x, cy=y, r=8 if named else 4, class_=" ".join(kinds))]
    if branch.champion:
        parts.append(
            words(x, y + 4, "★", anchor="middle", kind="star") if named else words(x, y - 8, "★", anchor="middle")
        )
    if named or policy.digest == shown:
        parts.append(words(x, y + 22, cut(_short(branch), 13), anchor="middle"))
    return linked(href(policy.digest), *parts)


def _stumps(places: dict[str, tuple[float, float]], childless: Sequence[RoundRecord]) -> list[Markup]:
    """A cross below a policy for all rounds from it that failed or go on; it leads to the newest of them."""
    newest: dict[str, RoundRecord] = {}
    counts: dict[str, int] = {}
    for record in childless:
        parent = str(json.loads(record.plan)["parent"])
        newest[parent], counts[parent] = record, counts.get(parent, 0) + 1
    found: list[Markup] = []
    for parent, record in newest.items():
        if parent in places:
            x, y = places[parent]
            told = f"{counts[parent]} round(s) from here made no policy; the newest is {record.state}: {record.message}"
            cross = element("text", element("title", told), "✕", x=x + 12, y=y + 14, class_="stump")
            found.append(linked(f"/rounds/{record.digest}", cross))
    return found


def _short(branch: Branch) -> str:
    return f"round {branch.depth}" if branch.policy.origin == "round" else branch.policy.name
