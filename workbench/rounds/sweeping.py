"""Giving back disk space: what no policy, round or person refers to."""

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from workbench.errors import JournalError
from workbench.objects import Objects
from workbench.policies.registry import Registry
from workbench.rounds.journal import FINAL, Journal

SCORE_STEP = "score "
"""How the names of scoring steps begin."""


class Freed(NamedTuple):
    """What was given back."""

    bytes: int
    folders: int


def sweep(
    journal: Journal,
    objects: Objects,
    registry: Registry,
    scratch: Path,
    *,
    older_than_s: float,
    scores: bool,
    also: Collection[str] = (),
) -> Freed:
    """Remove objects nothing refers to, staging folders left behind, and checkpoints of rounds that have ended.

    Args:
        journal: outputs of its steps are kept.
        objects: what is swept.
        registry: its policies are kept.
        scratch: folder with the checkpoints of each round.
        older_than_s: objects and staging folders younger than this stay; work outside rounds may be using them.
        also: further objects that are kept.
        scores: also remove published score tables; a round that needs one scores again.

    Raises:
        JournalError: a round is running.
    """
    rounds = journal.rounds()
    keep, tables = {p.digest for p in registry.policies()} | journal.outputs() | {*also}, set[str]()
    for one in rounds:
        status = journal.status(one.digest)
        if any(step.alive for step in status.steps):
            raise JournalError(f"round {one.digest[:12]} is running; wait until it ends, or stop it, then sweep again")
        tables |= {str(step.output) for step in status.steps if step.name.startswith(SCORE_STEP)}
    swept = objects.sweep(keep, older_than_s, forget=tables if scores else ())
    ended = {one.digest for one in rounds if one.state in FINAL}
    done = [folder for folder in scratch.iterdir() if folder.name in ended] if scratch.is_dir() else []
    freed = sum(f.stat().st_size for folder in done for f in folder.rglob("*") if f.is_file())
    for folder in done:
        shutil.rmtree(folder)
    return Freed(swept.bytes + freed, swept.folders + len(done))
