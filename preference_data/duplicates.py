"""Near-duplicate texts: MinHash signatures of character 5-grams and an index that finds the similar ones.

Two texts are similar when at least `AGREEING` of the `ROWS` numbers of their signatures are equal, which estimates a
Jaccard similarity of 0.81 (standard error 0.035) between their sets of 5-grams. Signatures are kept for ever beside
the splits they led to, so nothing here may change: the tests pin one.

MinHash: Broder, "On the resemblance and containment of documents", 1997. Banding: Leskovec, Rajaraman and Ullman,
"Mining of Massive Datasets", section 3.4.
"""

# pyright: reportMissingTypeStubs=false

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Any

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

from preference_data.records import Prompt

ROWS = 128
AGREEING = 104
# At most 24 rows of a similar pair differ, so of 25 bands one at least is equal: the index misses no similar text.
BANDS, ROWS_PER_BAND = 25, 5
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


class SimilarTexts:
    """Signatures by band, to find all that are similar to one without comparing it with each."""

    def __init__(self, signatures: Iterable[bytes]) -> None:
        """Index signatures; repeats count once."""
        self._index: Any = MinHashLSH(num_perm=ROWS, params=(BANDS, ROWS_PER_BAND))
        for each in sorted(set(signatures)):
            self._index.insert(each, _minhash(each), check_duplication=False)

    def to(self, wanted: bytes) -> list[bytes]:
        """The indexed signatures similar to one, itself among them where it is indexed, sorted."""
        candidates: list[bytes] = sorted(self._index.query(_minhash(wanted)))
        return list(compress(candidates, similar(wanted, candidates)))


def _numbers(signatures: bytes) -> NDArray[np.uint32]:
    return np.frombuffer(signatures, dtype="<u4")


def _minhash(wanted: bytes) -> MinHash:
    minhash: MinHash = _EMPTY.copy()
    minhash.hashvalues = _numbers(wanted)
    return minhash


def _shingle_hashes(text: str) -> NDArray[np.uint64]:
    """The distinct 32-bit hashes of a text's shingles; a text shorter than a shingle is one shingle."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split()).ljust(SHINGLE, "\0")
    characters = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    mixed = np.zeros(len(characters) - SHINGLE + 1, dtype=np.uint64)
    for column in np.lib.stride_tricks.sliding_window_view(characters, SHINGLE).T:
        mixed = (mixed ^ column) + _GOLDEN
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
        mixed ^= mixed >> np.uint64(31)
    return np.unique(mixed >> np.uint64(32))
