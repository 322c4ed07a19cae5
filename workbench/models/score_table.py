"""Scores of one version under one policy, as a file that steps hand to each other."""

from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

FILE = "scores.parquet"


class PairScore(NamedTuple):
    """Log-probabilities of both answers (nats, summed) and their lengths in tokens."""

    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int

    @property
    def margin(self) -> float:
        """Log p(chosen) - log p(rejected), nats."""
        return self.chosen - self.rejected


def write_table(folder: Path, scores: dict[str, PairScore]) -> None:
    """Write scores by pair key, sorted, so that the same scores are the same bytes."""
    keys = sorted(scores)
    columns = {
        "pair": pa.array(keys, pa.string()),
        "chosen": pa.array([scores[k].chosen for k in keys], pa.float64()),
        "rejected": pa.array([scores[k].rejected for k in keys], pa.float64()),
        "chosen_tokens": pa.array([scores[k].chosen_tokens for k in keys], pa.int32()),
        "rejected_tokens": pa.array([scores[k].rejected_tokens for k in keys], pa.int32()),
    }
    pq.write_table(pa.table(columns), folder / FILE)


def read_table(folder: Path) -> dict[str, PairScore]:
    """Scores by pair key."""
    table = pq.read_table(folder / FILE)
    rows = zip(*(table[name].to_pylist() for name in ("pair", *PairScore._fields)), strict=True)
    return {key: PairScore(*values) for key, *values in rows}
