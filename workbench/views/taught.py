"""From a judgement to what it taught: the versions with a pair or single answer made of it, and the rounds that trained on them."""

import json
from collections.abc import Iterator
from typing import NamedTuple

from preference_data.errors import VersionError
from preference_data.pair_table import read_judgements
from preference_data.records import Pair, Single
from preference_data.versions import PAIRS_FILE, SINGLES_FILE, Version
from workbench.places import Places
from workbench.rounds.journal import RoundRecord
from workbench.views.singles import of_answers

SHORTEST = 8
"""Characters of a judgement's key that have to be given."""


class Use(NamedTuple):
    """A pair or single answer that a version made of a judgement; one on more than two answers makes several.

    Attributes:
        version: its name.
        rounds: that ended with a policy on the version, oldest first, of a single answer for training those that learned from
            answers; what is not for training was not trained on.
    """

    version: str
    pair: Pair | Single
    rounds: tuple[RoundRecord, ...]


def uses_of(places: Places, judgement: str) -> tuple[Use, ...]:
    """Where a judgement went, oldest version first; nothing where no version has it.

    Args:
        places: the workspace.
        judgement: its key or the beginning of it; shorter ones than `SHORTEST` find nothing.
    """
    if len(judgement) < SHORTEST:
        return ()
    on: dict[str, list[RoundRecord]] = {}
    for record in places.journal.rounds():
        if record.child:
            on.setdefault(json.loads(record.plan)["version"], []).append(record)
    found: list[Use] = []
    for entry in places.versions.entries():
        rounds = on.get(entry.digest, [])
        try:
            found += [
                Use(
                    entry.name,
                    one,
                    tuple(r for r in rounds if isinstance(one, Pair) or one.split != "train" or of_answers(r)),
                )
                for one in _made(places, entry.digest, judgement)
            ]
        except VersionError:  # gone from the disk: what else has the judgement is still told
            continue
    return tuple(found)


def _made(places: Places, version: str, judgement: str) -> Iterator[Pair | Single]:
    """What a version made of a judgement."""
    folder = places.versions.directory / version
    for file, records in ((PAIRS_FILE, Version.pairs), (SINGLES_FILE, Version.singles)):
        if file == SINGLES_FILE and not (folder / file).exists():
            continue
        behind = read_judgements(folder / file)
        if at := [k for k, keys in enumerate(behind) if any(key.startswith(judgement) for key in keys)]:
            found = records(places.versions.find(version))
            yield from (found[k] for k in at)
