"""Figures with their targets, and how they are printed and kept."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil


@dataclass(frozen=True, slots=True)
class Figure:
    """Something measured.

    Attributes:
        name: what, with its unit.
        value: None where it could not be measured.
        target: the bound.
        bound: whether the value may be at most or must be at least the target.
        note: how it was measured, or why it was not.
    """

    name: str
    value: float | None
    target: float
    bound: Literal["at most", "at least"] = "at most"
    note: str = ""

    @property
    def verdict(self) -> Literal["ok", "short"]:
        """Whether the target is met; what was not measured is short."""
        if self.value is None:
            return "short"
        return (
            "ok" if (self.value <= self.target if self.bound == "at most" else self.value >= self.target) else "short"
        )

    def line(self) -> str:
        """For people and for `grep`."""
        value = "not measured" if self.value is None else f"{self.value:.4g}"
        return f"{self.verdict:<5}  {self.name}  {value}  {'<=' if self.bound == 'at most' else '>='} {self.target:g}"


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least this share of the values does not exceed; None of none.

    >>> quantile([3, 1, 2, 4], 0.5)
    2.0
    """
    return float(np.quantile(values, share, method="inverted_cdf")) if values else None


def machine() -> dict[str, Any]:
    """The shape of this machine, without its name."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
    }


def write(path: Path, command: str, figures: Sequence[Figure], packages: Sequence[str]) -> None:
    """Keep figures as JSON, with what is needed to measure them again."""
    kept = {
        "command": command,
        "machine": machine(),
        "versions": {name: version(name) for name in packages},
        "figures": [asdict(each) | {"verdict": each.verdict} for each in figures],
    }
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
