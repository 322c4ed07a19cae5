"""Bytes of a file: decompressed on the way, counted for progress, and capped, because files come from strangers."""

import gzip
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self, cast

from preference_data.errors import InputRefused

MAX_ROW_BYTES = 16 * 2**20
"""One row. 16 MiB is about four million tokens: beyond any context, yet held in memory without notice."""

MAX_DEPTH = 64
"""Brackets within brackets. Published formats stay below 10; Python's own JSON reader and writer give up near 1,000."""

MAX_RATIO = 200
"""Bytes out per byte of gzip in. JSON text reaches 3 to 30, gzip's limit, which bombs use, is 1,032."""

FREE_BYTES = 4 * 2**20
"""Output below which the ratio does not matter: a short file of repeated rows is no bomb."""

GZIP_MAGIC = b"\x1f\x8b"
UTF8_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error)
"""What Python raises on a gzip stream that is cut off or altered."""


class Refusal(NamedTuple):
    """Why a row is not imported; `ends_file` if nothing after it can be read either."""

    reason: str
    ends_file: bool = False


class Row(NamedTuple):
    """One row of a file.

    Attributes:
        line: line it starts on, from 1; in JSON arrays and tables the number of the row, from 1.
        value: the fields, or why there are none.
        bytes_done: bytes of the file read so far, as they lie on disk.
    """

    line: int
    value: dict[str, Any] | Refusal
    bytes_done: int


class Line(NamedTuple):
    """One line with its end, numbered from 1."""

    number: int
    content: bytes | Refusal


class Stream:
    """An open file that is decompressed if it is gzip, whatever its name says."""

    def __init__(self, path: Path) -> None:
        """Open the file and pass over a UTF-8 byte order mark.

        Raises:
            InputRefused: the text is UTF-16.
        """
        self._name = path.name
        self._raw = path.open("rb")
        self._zipped = self._raw.peek(2)[:2] == GZIP_MAGIC
        self._plain: IO[bytes] = cast("IO[bytes]", gzip.GzipFile(fileobj=self._raw)) if self._zipped else self._raw
        self._out = 0
        self._mark = 0
        self._start = self._without_mark()

    def _without_mark(self) -> bytes:
        try:
            start = self._plain.read(3)
        except DAMAGE:
            return b""  # the next read raises again, where the caller expects it
        if start[:2] in UTF16_MARKS:
            self._raw.close()
            raise InputRefused(f"{self._name}: UTF-16 text; expected UTF-8; save the file as UTF-8 and import again")
        return b"" if start == UTF8_MARK else start

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._plain.close()
        self._raw.close()

    @property
    def bytes_done(self) -> int:
        """Bytes consumed on disk, read-ahead included."""
        return self._raw.tell()

    def mark(self) -> None:
        """A row ended here; `read` counts the next one from this point."""
        self._mark = self._out

    def read(self, size: int) -> bytes:
        """At most `size` bytes.

        Raises:
            InputRefused: the row is over `MAX_ROW_BYTES`, or the file decompresses to far too much.
        """
        if size == 0:  # ijson asks once for the type of what is read
            return b""
        chunk, self._start = (self._start, b"") if self._start else (self._plain.read(size), b"")
        if self._out - self._mark > MAX_ROW_BYTES:
            raise InputRefused(
                f"a row is longer than {MAX_ROW_BYTES:,} bytes; expected less; "
                "take it out, or save the file as .jsonl, where such a row is refused alone"
            )
        return self._count(chunk)

    def readline(self, limit: int) -> bytes:
        """Up to the next line end, at most `limit` bytes.

        Raises:
            InputRefused: the file decompresses to far too much.
        """
        start, self._start = self._start, b""
        if b"\n" in start:
            cut = start.index(b"\n") + 1
            start, self._start = start[:cut], start[cut:]
            return self._count(start)
        return self._count(start + self._plain.readline(limit - len(start)))

    def _count(self, chunk: bytes) -> bytes:
        self._out += len(chunk)
        if self._zipped and self._out > FREE_BYTES and self._out > MAX_RATIO * self.bytes_done:
            raise InputRefused(
                f"decompresses to more than {MAX_RATIO} times its size, as a decompression bomb does; "
                "if you trust the file, decompress it and import the result"
            )
        return chunk


def lines(stream: Stream) -> Iterator[Line]:
    """The lines of a file; one longer than `MAX_ROW_BYTES` is refused without being held in memory."""
    number = 0
    while content := stream.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(content) <= MAX_ROW_BYTES:
            yield Line(number, content)
            continue
        size = len(content)
        while not content.endswith(b"\n") and (content := stream.readline(2**20)):
            size += len(content)
        reason = f"line of {size:,} bytes; expected at most {MAX_ROW_BYTES:,}; shorten the row or drop it"
        yield Line(number, Refusal(reason))


def fault(value: object) -> str:
    """What keeps a parsed value from being stored on every machine and database; empty if nothing does.

    Found are nesting beyond `MAX_DEPTH`, numbers that are not finite, lone surrogates and NUL characters.
    """
    level: list[object] = [value]
    depth = 0
    while level:
        if depth > MAX_DEPTH:
            return f"nested deeper than {MAX_DEPTH} levels; expected a flat row; drop it"
        below: list[object] = []
        for part in level:
            if isinstance(part, dict):
                fields = cast("dict[str, object]", part)
                below.extend(fields.keys())
                below.extend(fields.values())
            elif isinstance(part, list):
                below.extend(cast("list[object]", part))
            elif reason := _scalar_fault(part):
                return reason
        level = below
        depth += 1
    return ""


def _scalar_fault(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"holds the number {value}; expected finite numbers; correct the row or drop it"
    if isinstance(value, str):
        if "\x00" in value:
            return "holds a NUL character (in a .json file, or half of a surrogate pair); expected text; take it out"
        try:
            value.encode()
        except UnicodeEncodeError:
            return "holds half of a surrogate pair (\\ud800-\\udfff), which is no character; correct the row or drop it"
    return ""
