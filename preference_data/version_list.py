"""Names of dataset versions: a text file with one line per freeze, oldest first."""

from pathlib import Path
from typing import NamedTuple

from preference_data.errors import VersionError
from preference_data.line_file import append_line, read_lines
from preference_data.records import now
from preference_data.versions import Version, load_version

SHORTEST_PREFIX = 4
LATEST = "latest"


class VersionEntry(NamedTuple):
    """One line of the list: what people call a version and when it was frozen (UTC, ISO 8601)."""

    name: str
    digest: str
    at: str


class VersionList:
    """The versions of one workspace.

    Args:
        file: the list.
        directory: folder of all versions.
    """

    def __init__(self, file: Path, directory: Path) -> None:
        self._file, self.directory = file, directory

    def entries(self) -> list[VersionEntry]:
        """All names, oldest first."""
        return [VersionEntry(**line) for line in read_lines(self._file)]

    def check_free(self, name: str) -> None:
        """Refuse a name before work is done for it.

        Raises:
            VersionError: the name is taken.
        """
        taken = {e.name: e.digest for e in self.entries()} | {LATEST: "the newest version"}
        if name in taken:
            raise VersionError(f"version name '{name}' is taken by {taken[name][:18]}; choose another --name")

    def add(self, name: str, digest: str) -> VersionEntry:
        """Give a version a name, `v1`, `v2`, … where none is given. One frozen again keeps the name it has.

        Raises:
            VersionError: the name is taken by another version.
        """
        entries = self.entries()
        known = next((e for e in entries if e.digest == digest and name in {"", e.name}), None)
        if known:
            return known
        entry = VersionEntry(name or f"v{len(entries) + 1}", digest, now().isoformat())
        self.check_free(entry.name)
        append_line(self._file, entry._asdict())
        return entry

    def find(self, name: str) -> Version:
        """A version by name, digest, prefix of a digest, or `latest`.

        Raises:
            VersionError: nothing or several versions answer to it; lists what exists.
        """
        entries = self.entries()
        if name == LATEST and entries:
            return load_version(self.directory / entries[-1].digest)
        found = {
            e.digest for e in entries if e.name == name or (len(name) >= SHORTEST_PREFIX and e.digest.startswith(name))
        }
        if len(found) != 1:
            known = ", ".join(f"{e.name} ({e.digest[:12]})" for e in entries) or "none; `workbench freeze` makes one"
            raise VersionError(f"version '{name}': {len(found)} answer to it; versions: {known}")
        return load_version(self.directory / found.pop())
