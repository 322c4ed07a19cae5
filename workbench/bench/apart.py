"""A measurement in a process of its own, which writes what it found as JSON."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.errors import ConfigError


def apart(command: Sequence[str], told: Path, *, what: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a command that writes the file `told`, and read it.

    Args:
        command: program and arguments; `told` is given after them.
        told: where it writes; its folder is the command's working directory.
        what: what is measured, for the error.
        env: environment variables instead of this process's.

    Raises:
        ConfigError: it failed; its last words are told.
    """
    done = subprocess.run(
        [*command, str(told)], capture_output=True, text=True, check=False, cwd=told.parent, env=env
    )  # fmt: skip
    if done.returncode:
        raise ConfigError(f"bench {what} failed: {done.stderr[-500:]}")
    return json.loads(told.read_text(encoding="utf-8"))
