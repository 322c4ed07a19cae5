"""Figures of a stream: retention as heat maps, forgetting with intervals, gain against tax, KL against forgetting."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.bench.methods_report import by_method, kl_of, runs_of, tax
from workbench.drift.stream_metrics import difference, measured
from workbench.drift.uncertainty import Estimate

STYLE: dict[Any, Any] = {"svg.hashsalt": "workbench", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
         "axes.spines.right": False}  # fmt: skip
"""The same numbers give the same bytes; letters stay letters."""
COLUMNS = 4
DARK = 0.6
"""Below this share a cell of a heat map is dark enough for white letters."""
INK, SOFT = "#1f4e79", "#9db8d2"

Cells = Sequence[Mapping[str, Any]]


def draw(stream: str, found: Cells, folder: Path) -> list[Path]:
    """Write the figures of a stream as SVG files; those whose numbers were measured."""
    drawn = {"retention": retention(found), "forgetting": forgetting(found), "kl": kl(found)}
    if all(cell["choice"][0] for cell in found):
        drawn["pareto"] = pareto(found)
    files: list[Path] = []
    with mpl.rc_context(STYLE):
        for name, figure in drawn.items():
            files.append(folder / f"{stream}-{name}.svg")
            figure.savefig(files[-1], format="svg", metadata={"Date": None}, bbox_inches="tight")
    return files


def retention(found: Cells) -> Figure:
    """R[t, i] of every method, mean over seeds: a row per task, a column per round, the base first."""
    methods, tasks = by_method(found), found[0]["tasks"]
    columns = min(COLUMNS, len(methods))
    rows = -(-len(methods) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.6 * columns + 1, 0.34 * len(tasks) * rows + 0.7 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for each, (method, cells) in zip(axes, methods.items(), strict=False):
            _heat(each, np.array([block.mean(axis=(0, 2)) for block in runs_of(cells).hits]))
            each.set_title(method, fontsize=8)
            first = each in axes[::columns]
            each.set_yticks(range(len(tasks)), tasks if first else [""] * len(tasks))
        for each in axes[len(methods) :]:
            each.set_axis_off()
    return figure


def forgetting(found: Cells) -> Figure:
    """Forgetting over T-1 with its interval, the least first."""
    estimates = {name: measured(runs_of(cells))["forgetting"] for name, cells in by_method(found).items()}
    known = sorted(((n, e) for n, e in estimates.items() if e.value is not None), key=lambda pair: pair[1].value or 0.0)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 0.28 * len(known) + 0.8), layout="constrained")
        axes = figure.subplots()
        for place, (_, estimate) in enumerate(known):
            axes.barh(place, estimate.value or 0.0, color=SOFT)
            axes.plot(_ends(estimate), [place, place], color=INK, linewidth=1.4)
        axes.set_yticks(range(len(known)), [name for name, _ in known])
        axes.invert_yaxis()
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_xlabel("forgetting over T-1, share of test pairs (95 % interval)")
    return figure


def pareto(found: Cells) -> Figure:
    """What a method gained at the end over the base, against what it lost on questions; better is up and left."""
    points: list[tuple[str, Estimate, Estimate]] = []
    for name, cells in by_method(found).items():
        points.append((name, tax(cells), gain(cells)))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        best = _front([(_value(cost), _value(won)) for _, cost, won in points])
        for place, (name, cost, won) in enumerate(points):
            _point(axes, name, cost, won, color=INK if best[place] else SOFT)
        axes.set_xlabel("share of questions lost (95 % interval); dark: no method is better on both")
        axes.set_ylabel("gain over the base, all tasks, at the end")
    return figure


def kl(found: Cells) -> Figure:
    """KL to the base on the last policy's samples against forgetting: a point per lineage."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        marks = "osD^v<>PX*hp"
        for place, (name, cells) in enumerate(by_method(found).items()):
            nats = [kl_of(cell) for cell in cells]
            lost = [measured(runs_of([cell]))["forgetting"].value or 0.0 for cell in cells]
            axes.scatter(nats, lost, label=name, s=26, marker=marks[place % len(marks)], alpha=0.8)
        axes.set_xlabel("KL(policy || base) on the policy's samples, nats per token")
        axes.set_ylabel("forgetting over T-1")
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def gain(found: Cells) -> Estimate:
    """Last less the base's accuracy, over all tasks, paired."""
    runs = runs_of(found)
    base = runs._replace(hits=tuple(np.repeat(block[:, :1], block.shape[1], axis=1) for block in runs.hits))
    return difference("Last", runs, base)


def _heat(axes: Axes, values: Any) -> None:
    axes.imshow(values, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        shade = "white" if value < DARK else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=shade, fontsize=6.5)
    rounds = values.shape[1]
    axes.set_xticks(range(rounds), ["base", *map(str, range(1, rounds))], fontsize=7)
    axes.tick_params(length=0)


def _point(axes: Axes, name: str, across: Estimate, up: Estimate, *, color: str) -> None:
    x, y = _value(across), _value(up)
    axes.plot(_ends(across), [y, y], color=color, linewidth=1)
    axes.plot([x, x], _ends(up), color=color, linewidth=1)
    axes.plot(x, y, "o", color=color, markersize=4)
    axes.annotate(name, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7)


def _ends(estimate: Estimate) -> tuple[float, float]:
    if estimate.low is None or estimate.high is None:
        return _value(estimate), _value(estimate)
    return estimate.low, estimate.high


def _value(estimate: Estimate) -> float:
    return float("nan") if estimate.value is None else estimate.value


def _front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether no other point costs less and wins more.

    >>> _front([(0.0, 0.5), (0.1, 0.4), (0.1, 0.7)])
    [True, False, True]
    """
    return [not any(x <= a and y >= b and (x, y) != (a, b) for x, y in points) for a, b in points]
