"""Files without a name, for what does not fit into memory."""

import tempfile
import weakref
from contextlib import suppress
from typing import IO


def scratch(owner: object) -> IO[bytes]:
    """A temporary file that goes with its owner; where it lies is said by the environment variable TMPDIR."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the owner
    weakref.finalize(owner, _close, file)
    return file


def _close(file: IO[bytes]) -> None:
    # What was not written yet is not wanted any more.
    with suppress(OSError):
        file.close()
