"""Figures with their targets, and how they are printed and kept."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
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

    def named(self, name: str) -> "Figure":
        """The same under another name."""
        return replace(self, name=name)

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


class Kept:
    """A file of figures, part by part, so that a bench that was stopped goes on where it was.

    Args:
        path: of the file; None keeps nothing.
        command: what measures them.
        packages: whose versions matter.
        parts: of the bench, in their order.
    """

    def __init__(self, path: Path | None, command: str, packages: Sequence[str], parts: Sequence[str]) -> None:
        self._path, self._parts = path, tuple(parts)
        self._how = {
            "command": command,
            "machine": machine(),
            "versions": {name: version(name) for name in packages},
        }
        self.figures: dict[str, list[Figure]] = self._measured_before()

    def add(self, part: str, figures: Sequence[Figure]) -> None:
        """Keep what one part measured, with what is needed to measure it again."""
        self.figures[part] = list(figures)
        if self._path:
            rows = [asdict(f) | {"verdict": f.verdict, "part": p} for p, found in self.figures.items() for f in found]
            open_parts = [p for p in self._parts if p not in self.figures]
            kept = self._how | {"figures": rows} | ({"open": open_parts} if open_parts else {})
            self._path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")

    def _measured_before(self) -> dict[str, list[Figure]]:
        """Of a file of the same command, machine and versions of which parts are open."""
        if not self._path or not self._path.exists():
            return {}
        kept: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
        if "open" not in kept or any(kept.get(name) != value for name, value in self._how.items()):
            return {}
        found: dict[str, list[Figure]] = {}
        for row in kept["figures"]:
            found.setdefault(row["part"], []).append(Figure(**{f.name: row[f.name] for f in fields(Figure)}))
        return found
