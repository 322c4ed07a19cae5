"""How often the default gate errs, on simulated rounds with as many items as the default suites have."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from preference_data.samples import choice_items
from workbench.bench.figures import Figure
from workbench.config import GateSettings
from workbench.drift.uncertainty import Estimate, Floats, paired_shares, ratio
from workbench.rounds.gate import Measured, judge

PAIRS, TEXTS = 90, 50
"""Test pairs of an earlier version in the demo, and texts of the text suite."""
FLIPPED = 0.1
"""Share of items that flip: that of a light round; see `drift.power`."""
ROUNDS, FEW = 2000, 100
GOOD = Measured(
    finite_weights=True,
    gain=Estimate(0.2, 0.1, 0.3, PAIRS, "given"),
    retention_change={},
    tax={},
    kl_parent=Estimate(0.1, 0.05, 0.2, 100, "given"),
    kl_base=Estimate(0.1, 0.05, 0.2, 100, "given"),
)


def measure_gate(tell: Callable[[str], None], *, quick: bool) -> list[Figure]:
    """A/A rounds refused, and a planted loss of five points caught."""
    tell("simulating rounds for the gate")
    rounds, questions = FEW if quick else ROUNDS, len(choice_items())
    same = _refused(rounds, questions, lost=0.0, flipped=FLIPPED)
    worst = max(_refused(rounds, questions, lost=0.0, flipped=f) for f in (0.05, 0.2, 0.3))
    lost = _refused(rounds, questions, lost=0.05, flipped=FLIPPED, because="tax/choice")
    told = f"{rounds} simulated rounds, {questions} questions, {TEXTS} texts, one earlier version of {PAIRS} pairs"
    return [
        Figure("A/A rounds rejected, %", 100 * same, 5, note=f"{told}; {100 * FLIPPED:.0f} % of items flip"),
        Figure("A/A rounds rejected at 5, 20 and 30 % flips, the most, %", 100 * worst, 5, note=told),
        Figure(
            "planted loss of 5 points in capability caught, %",
            100 * lost,
            80,
            "at least",
            note=f"{told}; {100 * FLIPPED:.0f} % flip",
        ),
    ]


def _refused(rounds: int, questions: int, *, lost: float, flipped: float, because: str = "") -> float:
    """Share of rounds refused, or refused for one reason."""
    rng, settings, count = np.random.default_rng(0), GateSettings(), 0
    for _ in range(rounds):
        after, before = _drawn(rng, questions, lost=lost, flipped=flipped)
        measured = replace(
            GOOD,
            retention_change={"v1": paired_shares(*_drawn(rng, PAIRS, lost=0.0, flipped=flipped))},
            tax={
                "choice": paired_shares(before, after),
                "text": ratio(rng.normal(0, 3, TEXTS), rng.normal(1000, 100, TEXTS)),
            },
        )
        failed = [one.name for one in judge(settings, measured).failures]
        count += because in failed if because else bool(failed)
    return count / rounds


def _drawn(rng: np.random.Generator, n: int, *, lost: float, flipped: float) -> tuple[Floats, Floats]:
    """Right or wrong after and before, of which `flipped` change, so that the share falls by `lost`."""
    kind = rng.choice(3, n, p=[1 - flipped, (flipped - lost) / 2, (flipped + lost) / 2])
    return (kind == 1).astype(np.float64), (kind == 2).astype(np.float64)
