"""From a judgement to what it taught: the versions with a pair made of it, and the rounds that trained on them."""

import json
from typing import NamedTuple

from preference_data.errors import VersionError
from preference_data.pair_table import read_judgements
from preference_data.records import Pair
from preference_data.versions import PAIRS_FILE
from workbench.places import Places
from workbench.rounds.journal import RoundRecord

SHORTEST = 8
"""Characters of a judgement's key that have to be given."""


class Use(NamedTuple):
    """A pair that a version made of a judgement; one on more than two answers makes several.

    Attributes:
        version: its name.
        rounds: that ended with a policy on the version, oldest first; a pair that is not for training was not trained on.
    """

    version: str
    pair: Pair
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
        try:
            behind = read_judgements(places.versions.directory / entry.digest / PAIRS_FILE)
            at = [k for k, keys in enumerate(behind) if any(key.startswith(judgement) for key in keys)]
            pairs = places.versions.find(entry.digest).pairs() if at else []
            found += [Use(entry.name, pairs[k], tuple(on.get(entry.digest, ()))) for k in at]
        except VersionError:  # gone from the disk: what else has the judgement is still told
            continue
    return tuple(found)
