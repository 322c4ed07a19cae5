"""Files of JSON lines that only grow: a line is whole, or it is not there."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_lines(file: Path) -> list[dict[str, Any]]:
    """All lines, oldest first; nobody acted on a last one that a crash cut short, so it is left out."""
    if not file.exists():
        return []
    return [json.loads(line) for line in _whole(file.read_bytes()).decode("utf-8").splitlines()]


def append_line(file: Path, values: Mapping[str, Any]) -> None:
    """Add a line; it is on the disk when this returns.

    Raises:
        OSError: there is no room for it; the file has the lines it had.
    """
    with file.open("ab", buffering=0) as out:
        kept = _whole(file.read_bytes())
        start = b"" if kept.endswith(b"\n") or not kept else b"\n"
        line = start + (json.dumps(values) + "\n").encode("utf-8")
        out.truncate(len(kept))
        try:
            if out.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
            os.fsync(out.fileno())
        except OSError:
            out.truncate(len(kept))
            raise


def _whole(text: bytes) -> bytes:
    """Without a last line that was cut short; one that only lacks its end, as editors leave it, is whole."""
    last = text.rpartition(b"\n")[2]
    try:
        json.loads(last)
    except ValueError:
        return text[: len(text) - len(last)]
    return text
