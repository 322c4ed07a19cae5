"""Near-duplicate texts: MinHash signatures of character 5-grams, and how to find the similar ones.

Two texts are similar when at least `AGREEING` of the `ROWS` numbers of their signatures are equal, which estimates a
Jaccard similarity of 0.81 (standard error 0.035) between their sets of 5-grams. Signatures are kept for ever beside
the splits they led to, so nothing here may change: the tests pin one.

MinHash: Broder, "On the resemblance and containment of documents", 1997. Banding: Leskovec, Rajaraman and Ullman,
"Mining of Massive Datasets", section 3.4.
"""

# pyright: reportMissingTypeStubs=false

import os
import unicodedata
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

from preference_data.records import Prompt
from preference_data.scratch import scratch

ROWS = 128
AGREEING = 104
# At most 24 rows of a similar pair differ, so of 25 bands one at least is equal: the index misses no similar text.
BANDS, ROWS_PER_BAND = 25, 5
BANDS_AT_ONCE, SIGNATURES_AT_ONCE = 5, 20_000
SHINGLE = 5
# splitmix64 (Steele, Lea and Flood 2014): spreads the packed characters of a shingle over all bits.
_GOLDEN, _MIX_1, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_EMPTY: Any = MinHash(num_perm=ROWS, seed=1, scheme="affine32", hashfunc=int)


def clustered_text(prompt: Prompt) -> str:
    """What of a prompt decides its cluster: every turn but the system's.

    A system turn is often long and shared by a whole project; with it all prompts of the project would be similar.
    """
    turns = [m.content for m in prompt.messages if m.role != "system"]
    return "\n".join(turns or [m.content for m in prompt.messages])


def signature(text: str) -> bytes:
    """The MinHash signature of a text, the same on every machine.

    Case, width and compatibility forms (NFKC) and runs of white space make no difference.

    Returns:
        `ROWS` little-endian 32-bit numbers.
    """
    minhash = _EMPTY.copy()
    minhash.update_batch(_shingle_hashes(text).tolist())
    return minhash.hashvalues.astype("<u4").tobytes()


def similar(wanted: bytes, others: Sequence[bytes]) -> NDArray[np.bool_]:
    """Whether one signature is similar to each of others, shape (others,)."""
    rows = _numbers(b"".join(others)).reshape(len(others), ROWS)
    return np.count_nonzero(rows == _numbers(wanted), axis=1) >= AGREEING


class Signatures:
    """Signatures by number, kept on disk: a million of them take half a gigabyte."""

    def __init__(self) -> None:
        self._file = scratch(self)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> bytes:
        self._file.flush()
        return os.pread(self._file.fileno(), 4 * ROWS, 4 * ROWS * number)

    def add(self, signature: bytes) -> None:
        """Give the next number to a signature."""
        self._file.write(signature)
        self._count += 1

    def alike(self) -> NDArray[np.int64]:
        """For each signature the smallest number of one that is equal to it, shape (signatures,)."""
        known: dict[bytes, int] = {}
        return np.fromiter(
            (known.setdefault(blake2b(self[n], digest_size=16).digest(), n) for n in range(len(self))),
            np.int64,
            len(self),
        )

    def similar_pairs(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """All pairs of similar signatures among some of distinct content, shape (pairs, 2), each in ascending order."""
        found = np.empty((0, 2), dtype=np.int64)
        for first in range(0, BANDS, BANDS_AT_ONCE):
            for column in self._bands(numbers, first):
                found = np.unique(np.concatenate([found, self._verified(numbers, column)]), axis=0)
        return found

    def _bands(self, numbers: NDArray[np.int64], first: int) -> NDArray[np.uint64]:
        """Hashes of some bands of each signature, shape (bands, signatures)."""
        bands = range(first, min(first + BANDS_AT_ONCE, BANDS))
        hashes = np.empty((len(bands), len(numbers)), dtype=np.uint64)
        for start in range(0, len(numbers), SIGNATURES_AT_ONCE):
            part = slice(start, start + SIGNATURES_AT_ONCE)
            rows = self._rows(numbers[part]).astype(np.uint64)
            for place, band in enumerate(bands):
                mixed = np.zeros(len(rows), dtype=np.uint64)
                for column in range(band * ROWS_PER_BAND, (band + 1) * ROWS_PER_BAND):
                    mixed = (mixed ^ rows[:, column]) * _MIX_1 + _GOLDEN
                    mixed ^= mixed >> np.uint64(29)
                hashes[place, part] = mixed
        return hashes

    def _verified(self, numbers: NDArray[np.int64], hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The similar among those whose hashes are equal, shape (pairs, 2)."""
        order = np.argsort(hashes, kind="stable")
        ends = np.flatnonzero(np.diff(hashes[order], append=~hashes[order[-1:]])) + 1
        starts = np.concatenate([[0], ends[:-1]])
        pairs: list[NDArray[np.int64]] = [np.empty((0, 2), dtype=np.int64)]
        for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
            run = np.sort(numbers[order[start:end]])
            rows = self._rows(run)
            for place in range(len(run) - 1):
                equal = np.count_nonzero(rows[place + 1 :] == rows[place], axis=1) >= AGREEING
                others = run[place + 1 :][equal]
                pairs.append(np.stack([np.full_like(others, run[place]), others], axis=1))
        return np.concatenate(pairs)

    def _rows(self, numbers: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Signatures as numbers, shape (signatures, ROWS)."""
        if len(numbers) and numbers[-1] - numbers[0] == len(numbers) - 1:
            size = 4 * ROWS
            return _numbers(os.pread(self._file.fileno(), size * len(numbers), size * int(numbers[0]))).reshape(
                -1, ROWS
            )
        return _numbers(b"".join(self[int(n)] for n in numbers)).reshape(-1, ROWS)


def _numbers(signatures: bytes) -> NDArray[np.uint32]:
    return np.frombuffer(signatures, dtype="<u4")


def _shingle_hashes(text: str) -> NDArray[np.uint64]:
    """The distinct 32-bit hashes of a text's shingles; a text shorter than a shingle is one shingle."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split()).ljust(SHINGLE, "\0")
    characters = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    count = len(characters) - SHINGLE + 1
    mixed = np.zeros(count, dtype=np.uint64)
    for place in range(SHINGLE):
        mixed ^= characters[place : place + count]
        mixed += _GOLDEN
        mixed ^= mixed >> np.uint64(30)
        mixed *= _MIX_1
        mixed ^= mixed >> np.uint64(27)
        mixed *= _MIX_2
        mixed ^= mixed >> np.uint64(31)
    return np.unique(mixed >> np.uint64(32))
