"""Pairs, or single answers, on their way into a version: on disk as they come, read back in the order of their keys."""

import json
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preference_data.pair_table import row_of
from preference_data.records import SPLITS, Pair, Single, Split, canonical_json
from preference_data.scratch import scratch

KEY = "S64"
"""Keys are the hexadecimal digits of SHA-256."""


class Spool:
    """Canonical rows of pairs, or of single answers; in memory are only their keys and places."""

    def __init__(self) -> None:
        self._file = scratch(self)
        self._keys, self._splits = bytearray(), bytearray()
        self._ends: array[int] = array("q", [0])
        self._clusters: array[int] = array("q")
        self._most = 0

    def __len__(self) -> int:
        count = len(self._clusters)
        return min(count, self._most) if self._most else count

    def add(self, record: Pair | Single, cluster: int = 0) -> None:
        """Add one; no two have the same key.

        Raises:
            OSError: the disk is full.
        """
        row = row_of(record)
        line = canonical_json(row).encode()
        self._file.write(line)
        self._keys += row["key"].encode()
        self._ends.append(self._ends[-1] + len(line))
        self._clusters.append(cluster)
        self._splits.append(SPLITS.index(record.split))

    def keep(self, most: int) -> int:
        """Let go of all but so many, those with the smallest keys; 0 keeps all. Returns how many go."""
        self._most = most
        return len(self._clusters) - len(self)

    def cluster_sizes(self) -> NDArray[np.int64]:
        """How many there are of each cluster that has any."""
        clusters = np.array(self._clusters, dtype=np.int64)
        return np.unique(clusters[self._order()], return_counts=True)[1]

    def splits(self) -> dict[Split, int]:
        """How many there are per split; every split is named."""
        splits = np.frombuffer(bytes(self._splits), dtype=np.uint8)[self._order()]
        return {split: int(np.count_nonzero(splits == number)) for number, split in enumerate(SPLITS)}

    def lines(self) -> Iterator[bytes]:
        """Canonical rows, as they are hashed."""
        self._file.flush()
        order: list[int] = self._order().tolist()
        for place in order:
            start, end = self._ends[place], self._ends[place + 1]
            self._file.seek(start)
            yield self._file.read(end - start)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows as `pair_table.row_of` made them."""
        for line in self.lines():
            row = json.loads(line)
            yield row | {"slices": [(name, value) for name, value in row["slices"]]}

    def _order(self) -> NDArray[np.int64]:
        keys = np.frombuffer(bytes(self._keys), dtype=KEY)
        return np.argsort(keys, kind="stable")[: len(self)]
