"""What takes long, in a process of its own: imports, exports, freezes, by the command line everybody has."""

import atexit
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

from preference_data.exporters import EXPORTERS

LONGEST_S = 3600
REFUSED = ("line", "reason", "row")
MOST_REFUSED = 200
"""Refused rows that are shown; the file has all."""


class ChoreError(RuntimeError):
    """A verb refused; says why."""


class Chores:
    """Runs verbs of `workbench` on a workspace."""

    def __init__(self, workspace: str) -> None:
        """Work on a workspace's folder; without one every chore says so."""
        self._workspace = workspace

    @staticmethod
    def forms() -> list[str]:
        """Formats of exports."""
        return list(EXPORTERS)

    def look(self, path: str | None) -> tuple[str, list[list[str]]]:
        """What an import of a file would store, and the rows it would refuse, as `REFUSED`; nothing is stored."""
        return self._imported(path, "--dry-run")

    def take_in(self, path: str | None) -> tuple[str, list[list[str]]]:
        """Import a file; what is told of it, and the rows it refused, as `REFUSED`."""
        return self._imported(path)

    def hand_out(self, form: str) -> tuple[str | None, str]:
        """Export everything; an archive with the file and its sidecar, and what is told of it."""
        folder = fresh_folder() / form
        folder.mkdir()
        told = self._told("export", form, str(folder / f"{form}.jsonl"))
        return (shutil.make_archive(str(folder), "zip", folder) if any(folder.iterdir()) else None), told

    def preview(self) -> str:
        """What a version would hold."""
        return self._told("freeze", "--dry-run")

    def freeze(self, name: str) -> str:
        """Freeze a version."""
        return self._told("freeze", *([f"--name={name.strip()}"] if name.strip() else []))

    def cost(self, settings: str) -> list[tuple[str, str]]:
        """What a round of these settings (TOML) would cost and could show.

        Raises:
            ChoreError: the plan was refused; says why.
        """
        with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
            file.write(settings)
            file.flush()
            try:
                planned = self._run("plan", "--settings", file.name)
            except subprocess.TimeoutExpired as error:
                raise ChoreError(f"planning took longer than {LONGEST_S} s") from error
        found, plan = planned["estimate"], planned["plan"]
        return [("seconds in all", f"{found['total_s']:.0f}"), ("memory at its peak", f"{found['memory_bytes'] / 1e9:.2f} GB"),
                *((f"seconds to {name}", f"{seconds:.0f}") for name, seconds in found["seconds"].items()),
                ("optimizer steps", str(found["steps"])),
                ("pairs to take prompts from" if "online" in plan else "pairs to train on", str(found["workload"]["train_pairs"])),
                *([("prompts left out, which leave no room for an answer", str(found["workload"]["no_room"]))] if "online" in plan else []),
                *((f"smallest change of {sight['name']} it would see", "none" if sight["change"] is None else f"{sight['change']:.3f}")
                  for sight in found["sights"])]  # fmt: skip

    def ask_again(self, project: str, sources: Sequence[str], count: int, fall: Mapping[str, str]) -> str:
        """Put comparisons of some sources on the annotation page, those of slices that fell first; what is told of it.

        Args:
            project: its name.
            sources: of the comparisons.
            count: how many.
            fall: whose it was, and of what: `policy`, `version`, `within`.

        Raises:
            ChoreError: none could be put there; says why.
        """
        given = [f"--{name}={value}" for name, value in fall.items()] + [f"--source={source}" for source in sources]
        found = self._run("ask", project, "--strategy", "forgetting", "--count", str(count), *given)
        told = f"{found['added']} comparisons are in project '{project}' now; judge them on the page"
        return told if found["weighted"] else f"{told}. No slice of them fell there, so that chance alone chose them"

    def _imported(self, path: str | None, *words: str) -> tuple[str, list[list[str]]]:
        if not path:
            return "Choose a file first.", []
        try:
            found = self._run("import", path, *words)
        except (ChoreError, subprocess.TimeoutExpired) as error:
            return _not_done(error), []
        return _table(found), _refused(found.get("rejects"))

    def _told(self, *words: str) -> str:
        try:
            return _table(self._run(*words))
        except (ChoreError, subprocess.TimeoutExpired) as error:
            return _not_done(error)

    def _run(self, *words: str) -> Mapping[str, Any]:
        if not self._workspace:
            raise ChoreError("this page knows no workspace; start it with `workbench page`")
        command = [sys.executable, "-m", "workbench", words[0], *words[1:], "--workspace", self._workspace, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
        if done.returncode:
            raise ChoreError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "it ended without a word")
        return json.loads(done.stdout)


def fresh_folder() -> Path:
    """A new folder that goes when this process ends."""
    place = tempfile.mkdtemp(prefix="export-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return Path(place)


def _not_done(error: Exception) -> str:
    return f"Not done: {escape(str(error))}"


def _refused(path: str | None) -> list[list[str]]:
    """The first rows of a rejects file."""
    if not path:
        return []
    with Path(path).open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in islice(file, MOST_REFUSED)]
    return [[str(row["line"]), row["reason"], row["row"] or ""] for row in rows]


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
