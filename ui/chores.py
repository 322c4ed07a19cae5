"""What takes long, in a process of its own: imports, exports, freezes, by the command line everybody has."""

import atexit
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from preference_data.exporters import EXPORTERS

LONGEST_S = 3600


class Chores:
    """Runs verbs of `workbench` on a workspace."""

    def __init__(self, workspace: str) -> None:
        """Work on a workspace's folder; without one every chore says so."""
        self._workspace = workspace

    @staticmethod
    def forms() -> list[str]:
        """Formats of exports."""
        return list(EXPORTERS)

    def look(self, path: str | None) -> str:
        """What an import of a file would store and refuse; nothing is stored."""
        return self._told(path, "import", str(path), "--dry-run")

    def take_in(self, path: str | None) -> str:
        """Import a file."""
        return self._told(path, "import", str(path))

    def hand_out(self, form: str) -> tuple[str | None, str]:
        """Export everything; an archive with the file and its sidecar, and what is told of it."""
        place = tempfile.mkdtemp(prefix="export-")
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        folder = Path(place) / form
        folder.mkdir()
        told = self._told("store", "export", form, str(folder / f"{form}.jsonl"))
        return (shutil.make_archive(str(folder), "zip", folder) if any(folder.iterdir()) else None), told

    def preview(self) -> str:
        """What a version would hold."""
        return self._told("store", "freeze", "--dry-run")

    def freeze(self, name: str) -> str:
        """Freeze a version."""
        return self._told("store", "freeze", *([f"--name={name.strip()}"] if name.strip() else []))

    def _told(self, path: str | None, *words: str) -> str:
        if not path:
            return "Choose a file first."
        try:
            return _table(self._run(*words))
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            return f"Not done: {escape(str(error))}"

    def _run(self, *words: str) -> Mapping[str, Any]:
        if not self._workspace:
            raise RuntimeError("this page knows no workspace; start it with `workbench page`")
        command = [sys.executable, "-m", "workbench", words[0], *words[1:], "--workspace", self._workspace, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
        if done.returncode:
            raise RuntimeError(
                done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "it ended without a word"
            )
        return json.loads(done.stdout)


def _table(found: Mapping[str, Any]) -> str:
    rows = "\n".join(f"| {escape(name)} | {escape(value)} |" for name, value in _flat(found))
    return f"| | |\n|---|---|\n{rows}"


def _flat(found: Mapping[str, Any], before: Sequence[str] = ()) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in found.items():
        if isinstance(value, dict):
            rows += _flat(value, (*before, name))  # pyright: ignore[reportUnknownArgumentType]
        elif value not in (None, ""):
            rows.append((": ".join([*before, name.replace("_", " ")]), str(value)))
    return rows
