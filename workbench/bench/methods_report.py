"""From lineages to a table: what protects, what does not, at which cost."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workbench.drift.crossed import crossed
from workbench.drift.stream_metrics import METRICS, Runs, largest_forgetting, measured
from workbench.drift.uncertainty import Estimate, Floats


def by_method(found: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Lineages by method, seed by seed."""
    methods: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for cell in sorted(found, key=lambda cell: cell["seed"]):
        methods[cell["method"]].append(cell)
    return dict(methods)


def runs_of(found: Sequence[Mapping[str, Any]]) -> Runs:
    """Hits of the seeds of one method."""
    tasks = range(len(found[0]["tasks"]))
    hits = tuple(np.array([cell["hits"][task] for cell in found], dtype=np.float64) for task in tasks)
    return Runs(
        hits, frozenset(i for i, task in enumerate(found[0]["tasks"], 1) if task in found[0].get("replaced", ()))
    )


def behaviour_of(found: Sequence[Mapping[str, Any]]) -> Runs | None:
    """What generated answers keep to, of the seeds of one method; None where a task has no guideline.

    In the place of a hit, for every test prompt of the task: 1 where an answer keeps to the task's guideline better than the
    base's answer to that prompt does, 0 where worse, 1/2 where as well.
    """
    if without_guideline(found):
        return None
    named = _guidelines(found)
    kept = (np.array([_kept(cell["compliance"][name][i]) for cell in found]) for i, name in enumerate(named))
    return Runs(tuple(kept), runs_of(found).replaced)


def without_guideline(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Tasks that no guideline judges the answers of."""
    pairs = zip(found[0]["tasks"], _guidelines(found), strict=True)
    return [task for task, name in pairs if not all(name in cell["compliance"] for cell in found)]


def _guidelines(found: Sequence[Mapping[str, Any]]) -> Sequence[str]:
    """By task; results that do not say it are of tasks that are called as their guideline."""
    return found[0].get("guidelines", found[0]["tasks"])


def _kept(scores: Sequence[Sequence[float]]) -> Floats:
    """Of one guideline and lineage, from scores by policy; shape (policies, prompts)."""
    rows = np.array(scores, dtype=np.float64)
    return (np.sign(rows - rows[0]) + 1) / 2


BEHAVIOUR = "Last", "learned", "forgetting"
"""What is told of answers."""
COSTS = (
    "Pairs (of an epoch) and answers scored before training (once for every policy that scores them) are sums over the rounds, and the "
    "same whichever method ran first. Minutes are not: what an earlier lineage in the workspace had computed already takes no time."
)


def kl_of(found: Mapping[str, Any]) -> float:
    """Of one lineage, the last policy's KL to the base, nats per token on its samples, mean over tasks; or not a number."""
    known = [row[-1] for row in found["kl_base"] if row[-1] is not None]
    return float(np.mean(known)) if known else float("nan")


def tax(found: Sequence[Mapping[str, Any]]) -> Estimate:
    """Share of choice items lost from the base to the last policy; positive means lost."""
    return crossed([tax_items(found)])


def tax_items(found: Sequence[Mapping[str, Any]]) -> Floats:
    """The same by seed and item."""
    choice = [np.array(cell["choice"], dtype=np.float64) for cell in found]
    return np.array([each[0] - each[-1] for each in choice])


def table(found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """One row per method, every number with its interval."""
    rows: list[dict[str, str]] = []
    for method, cells in by_method(found).items():
        numbers = {name: _percent(each) for name, each in measured(runs_of(cells)).items()}
        if kept := behaviour_of(cells):
            answers = measured(kept)
            numbers |= {f"answers: {name}": _percent(answers[name]) for name in BEHAVIOUR}
        rounds = [row for cell in cells for row in cell["rounds"]]
        rows.append(
            {
                "method": method,
                **({"chosen": cells[0]["trial"]} if "trial" in cells[0] else {}),
                "seeds": str(len(cells)),
                **numbers,
                "most forgotten": _percent(largest_forgetting(runs_of(cells))),
                "tax": _percent(tax(cells)),
                "text bits": _bits(cells),
                "KL to base": _last(cells, "kl_base", digits=3),
                "KL to parent": _last(cells, "kl_parent", digits=3),
                "tokens": _last(cells, "tokens", digits=1),
                "distinct-2": _last(cells, "distinct_2", digits=2),
                "pairs": f"{sum(row['pairs'] for row in rounds) / len(cells):.0f}",
                "scored": f"{sum(row['scored'] for row in rounds) / len(cells):.0f}",
                "MB a child": f"{np.mean([row['disk_bytes'] for row in rounds]) / 1e6:.1f}",
                "minutes a round": _minutes([row["seconds"] for row in rounds]),
            }
        )
    return rows


def compliance(found: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """By method and guideline, the mean score of generated answers by policy (base first), over all tasks' prompts."""
    scores: dict[str, dict[str, list[float]]] = {}
    for method, cells in by_method(found).items():
        for guideline in cells[0]["compliance"]:
            tables = [cell["compliance"][guideline] for cell in cells]
            policies = range(len(tables[0][0]))
            means = [np.mean([np.mean(row[p]) for one in tables for row in one]) for p in policies]
            scores.setdefault(method, {})[guideline] = [round(float(mean), 2) for mean in means]
    return scores


def markdown(stream: str, found: Sequence[Mapping[str, Any]], figures: Sequence[str] = ()) -> str:
    """The table of a stream, with the convention of every metric, and its figures by file name."""
    rows = table(found)
    head = list(rows[0])
    lines = [f"### {stream}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row.values()) + " |" for row in rows]
    for method, guidelines in compliance(found).items():
        lines += [f"\nScores of generated answers by {method}, base first:"] if guidelines else []
        lines += [f"- {name}: {', '.join(map(str, means))}" for name, means in guidelines.items()]
    lines += ["", f"Tasks in order: {', '.join(found[0]['tasks'])}. " + "; ".join(c for _, c in METRICS.values()) + "."]
    lines.append(f"\n{COSTS}")
    if any(f"answers: {BEHAVIOUR[0]}" in row for row in rows):
        lines.append("\nAnswers: the same metrics of how often an answer keeps to a task's guideline better than the base's answer to the "
                     "prompt does, ties as half.")  # fmt: skip
    without = without_guideline(found)
    if 0 < len(without) < len(found[0]["tasks"]):
        lines.append(f"\nNo metrics of answers, for no guideline judges these tasks: {', '.join(without)}.")
    if gone := found[0].get("replaced"):
        lines.append(f"\nReplaced by a later task, and so not in Last, BWT and forgetting: {', '.join(gone)}.")
    lines += ["", *(f"![{each.removesuffix('.svg')}]({each})" for each in figures)] if figures else []
    return "\n".join(lines) + "\n"


def _percent(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _bits(cells: Sequence[Mapping[str, Any]]) -> str:
    """What a text costs more bits than under the base; where the text suite was asked."""
    if not all(cell["text_bits"][0] for cell in cells):
        return "-"
    return f"{100 * (_over_seeds(cells, lambda c: c['text_bits'][-1] / c['text_bits'][0]) - 1):+.1f} %"


def _minutes(seconds: Sequence[float | None]) -> str:
    known = [each for each in seconds if each is not None]
    return f"{sum(known) / len(known) / 60:.1f}" if known else "-"


def _over_seeds(cells: Sequence[Mapping[str, Any]], of: Any) -> float:
    return float(np.mean([of(cell) for cell in cells]))


def _last(cells: Sequence[Mapping[str, Any]], name: str, *, digits: int) -> str:
    """Mean over seeds and tasks of the last policy's number, where there is one."""
    known = [row[-1] for cell in cells for row in cell[name] if row[-1] is not None]
    return f"{np.mean(known):.{digits}f}" if known else "-"
