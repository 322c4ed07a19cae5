"""`workbench bench matched`: are several anchors worth it, at the same distance from the base?

References {parent, base, both} with and without replay, each at several beta and seeds. A smaller beta moves a policy
further and so learns more and forgets more; what is compared is read off at one KL to the base, between the two beta
that enclose it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from workbench.bench.cells import Cell, chosen
from workbench.bench.figures import Figure
from workbench.bench.methods import Bench
from workbench.bench.methods_report import kl_of, runs_of
from workbench.bench.streams import stream
from workbench.drift.stream_metrics import difference, measured

BOTH = {"mix": ("plain", "base"), "mix-replay": ("replay", "base-replay")}
"""Methods with both anchors, and those with one of them, without and with replay."""
REFERENCES = tuple(method for both, singles in BOTH.items() for method in (*singles, both))
BETAS = (0.1, 0.3, 1.0)
SEEDS = 5
SHOWN = ("Last", "learned", "forgetting")


class At(NamedTuple):
    """One lineage of one beta.

    Attributes:
        kl: to the base, nats per token on the last policy's samples, mean over tasks.
        found: what it measured.
    """

    kl: float
    found: Mapping[str, Any]


def measure(tell: Callable[[str], None], *, quick: bool) -> list[Figure]:
    """The difference that both anchors make to the better of one, with its interval, and the table beside the lineages."""
    asked = chosen("streams")[0]
    name, _ = stream(asked)
    bench = Bench(asked, tell, quick=quick)
    seeds = range(2 if quick else SEEDS)
    cells = [
        Cell(name, f"{method}+objective.beta={beta}", seed) for seed in seeds for method in REFERENCES for beta in BETAS
    ]
    lineages: dict[str, list[list[At]]] = {method: [[] for _ in seeds] for method in REFERENCES}
    for cell, found in zip(cells, bench.lineages(cells), strict=True):
        lineages[cell.method.split("+")[0]][cell.seed].append(At(kl_of(found), found))
    target = common_kl(lineages)
    read = {method: [at(points, target) for points in by_seed] for method, by_seed in lineages.items()}
    bench.keep("matched", table(read, target, len(seeds)))
    return figures(name, read)


def common_kl(lineages: Mapping[str, Sequence[Sequence[At]]]) -> float:
    """The KL that most lineages enclose: the median over methods and seeds of the middle one of a lineage's beta."""
    middles = [sorted(point.kl for point in points)[len(points) // 2] for by in lineages.values() for points in by]
    return float(np.median(middles))


def at(points: Sequence[At], kl: float) -> dict[str, Any]:
    """What a lineage would measure at a KL: the two nearest in KL that enclose it, mixed; the nearest where none does.

    Right and wrong become shares: an item that is right at one end only counts in part.

    Returns:
        As a lineage's results: `tasks`, `hits`; and `enclosed`, whether the KL lay between two.
    """
    ordered = sorted(points, key=lambda point: point.kl)
    above = next((i for i, point in enumerate(ordered) if point.kl >= kl), len(ordered))
    low, high = ordered[max(above - 1, 0)], ordered[min(above, len(ordered) - 1)]
    share = 0.0 if high.kl == low.kl else (kl - low.kl) / (high.kl - low.kl)
    hits = [
        ((1 - share) * np.array(a) + share * np.array(b)).tolist()
        for a, b in zip(low.found["hits"], high.found["hits"], strict=True)
    ]
    return {
        "tasks": low.found["tasks"],
        "replaced": low.found.get("replaced", ()),
        "hits": hits,
        "enclosed": low is not high or low.kl == kl,
    }


def table(read: Mapping[str, Sequence[Mapping[str, Any]]], kl: float, seeds: int) -> str:
    """Markdown: a row per reference."""
    lines = [f"At a KL to the base of {kl:.2f} nats per token, {seeds} seeds, beta {', '.join(map(str, BETAS))}:", "",
             "| reference | " + " | ".join(SHOWN) + " | enclosed |", "|" + "---|" * (len(SHOWN) + 2)]  # fmt: skip
    for method, found in read.items():
        numbers = measured(runs_of(found))
        enclosed = sum(each["enclosed"] for each in found)
        row = [method, *(str(numbers[name]) for name in SHOWN), f"{enclosed} of {len(found)}"]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def figures(name: str, read: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Figure]:
    """What both anchors change against the better single one, by Last: Last itself, and forgetting."""
    found: list[Figure] = []
    for both, singles in BOTH.items():
        single = max(singles, key=lambda method: measured(runs_of(read[method]))["Last"].value or 0.0)
        kept = [
            k for k, pair in enumerate(zip(read[both], read[single], strict=True)) if all(e["enclosed"] for e in pair)
        ]
        title = f"{name} at one KL: {{}} of {both} less that of {single}, {{}} bound"
        if not kept:
            why = "no seed has both methods on either side of that KL; give more beta"
            found.append(Figure(title.format("Last", "lower"), None, 0.0, "at least", note=why))
            found.append(Figure(title.format("forgetting", "upper"), None, 0.0, "at most", note=why))
            continue
        first, second = (runs_of([read[method][k] for k in kept]) for method in (both, single))
        last, lost = (difference(metric, first, second) for metric in ("Last", "forgetting"))
        of = f"{len(kept)} of {len(read[both])} seeds"
        found.append(Figure(title.format("Last", "lower"), last.low, 0.0, "at least", note=f"{last}; {of}"))
        found.append(Figure(title.format("forgetting", "upper"), lost.high, 0.0, "at most", note=f"{lost}; {of}"))
    return found


PARTS = {"all": measure}
