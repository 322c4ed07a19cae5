"""What must hold of `recommended` on a stream, as figures with targets."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from workbench.bench.figures import Figure
from workbench.bench.methods_report import behaviour_of, by_method, runs_of, tax, tax_items
from workbench.drift.crossed import crossed
from workbench.drift.power import POWER, chance_of_showing
from workbench.drift.stream_metrics import Runs, difference, measured
from workbench.drift.uncertainty import Estimate

PLAIN, EQUAL, BOUND, OURS = "plain", "equal-replay", "retrain", "recommended"
"""Sequential DPO; replay alone, of equal size and steps; retraining on everything, whose last policy has seen all tasks
at once; and ours."""
CONTROL = "plain+training.learning_rate=0.002"
"""Sequential DPO at ten times the learning rate: harm that the suites have to see."""

FIFTH, HALF, WORSE = 0.2, 0.5, -0.04
FORGETS = 0.1
MOST_TAX = 0.01

Cells = Sequence[Mapping[str, Any]]


def figures_of(stream: str, found: Cells) -> list[Figure]:
    """What must hold, as far as the methods it takes were run."""
    methods = by_method(found)
    runs = {name: runs_of(cells) for name, cells in methods.items()}
    figures = [*_of_plain(runs)]
    if OURS in methods:
        figures += [*_of_ours(runs), *_of_tax(methods)]
    figures += _of_answers(methods)
    if CONTROL in methods and tax_items(methods[CONTROL]).size:
        figures.append(_power(methods[CONTROL]))
    return [each.named(f"{stream}: {each.name}") for each in figures]


def _of_plain(runs: Mapping[str, Runs]) -> Iterator[Figure]:
    if PLAIN in runs:
        forgets = measured(runs[PLAIN])["forgetting"]
        yield _figure("forgetting of sequential DPO", forgets, forgets.value, FORGETS, at_least=True)


def _of_ours(runs: Mapping[str, Runs]) -> Iterator[Figure]:
    ours = runs[OURS]
    if PLAIN in runs:
        plain = runs[PLAIN]
        forgets, mine = measured(plain)["forgetting"], measured(ours)["forgetting"]
        if forgets.value and forgets.low and forgets.value >= FORGETS and forgets.low > 0:
            share = None if mine.value is None else mine.value / forgets.value
            yield _figure("share of sequential DPO's forgetting", mine, share, FIFTH)
            half = difference("forgetting", ours, plain, times=HALF)
            yield _figure("forgetting less half of sequential DPO's, upper bound", half, half.high, 0)
        same = difference("learned", ours, plain)
        yield _figure("learned less sequential DPO's, lower bound", same, same.low, WORSE, at_least=True)
    if EQUAL in runs:
        less = difference("forgetting", ours, runs[EQUAL])
        yield _figure("forgetting less that of replay of equal size, upper bound", less, less.high, 0)
    if BOUND in runs:
        same = difference("Last", ours, runs[BOUND])
        yield _figure("Last less retraining's, lower bound", same, same.low, WORSE, at_least=True)


ONLINE = "+online."
"""In the name of a method that learns from fresh answers; without such parts it is the method that does not."""


def _of_answers(methods: Mapping[str, Cells]) -> Iterator[Figure]:
    """What answers keep to, of a method with fresh answers and of the same without."""
    for name, cells in methods.items():
        offline = "+".join(part for part in name.split("+") if not part.startswith("online."))
        if ONLINE not in name or offline not in methods:
            continue
        online, fixed = behaviour_of(cells), behaviour_of(methods[offline])
        paired = [cell["seed"] for cell in cells] == [cell["seed"] for cell in methods[offline]]
        if online is None or fixed is None or not paired:
            continue
        less = difference("forgetting", online, fixed)
        yield _figure(f"forgotten in answers, {name} less offline, upper bound", less, less.high, 0)
        more = difference("Last", online, fixed)
        yield _figure(f"Last in answers, {name} less offline, lower bound", more, more.low, 0, at_least=True)


def _of_tax(methods: Mapping[str, Cells]) -> Iterator[Figure]:
    if not tax_items(methods[OURS]).size:
        return
    lost = tax(methods[OURS])
    yield _figure("capability tax, upper bound", lost, lost.high, MOST_TAX)
    others = [name for name in methods if name != OURS]
    better = [name for name in others if _better(methods[name], methods[OURS])]
    note = ", ".join(better) or f"of {len(others)} others"
    yield Figure("methods better on Last and on tax, both beyond the interval", len(better), 0, note=note)


def _better(theirs: Cells, ours: Cells) -> bool:
    """Whether theirs is better on Last and on tax, each by more than the paired interval; BOUND counts, too."""
    last = difference("Last", runs_of(theirs), runs_of(ours))
    cost = crossed([tax_items(theirs) - tax_items(ours)])
    return last.low is not None and last.low > 0 and cost.high is not None and cost.high < 0


def _power(control: Cells) -> Figure:
    """The chance that one lineage's paired interval shows what the control lost on average."""
    items = tax_items(control)
    error = float(np.mean(items.std(axis=1, ddof=1))) / items.shape[1] ** 0.5
    lost = tax(control)
    power = None if lost.value is None else chance_of_showing(lost.value, error)
    return _figure("chance to see the harm of ten times the learning rate", lost, power, POWER, at_least=True)


def _figure(name: str, estimate: Estimate, value: float | None, target: float, *, at_least: bool = False) -> Figure:
    return Figure(name, value, target, "at least" if at_least else "at most", note=str(estimate))
