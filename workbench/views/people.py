"""Who taught each version and whether they agreed, beside what the model did: drift of people is not drift of the model."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from preference_data.database import reading
from preference_data.errors import VersionError
from preference_data.pair_table import read_judgements
from preference_data.queries import judgements_by_key
from preference_data.records import Judgement, Pairwise, Verdict
from preference_data.versions import PAIRS_FILE, load_version
from workbench.drift.uncertainty import Estimate, share
from workbench.places import Places

MIXED = ("annotator_group", "source", "language", "domain", "length_band")
"""Slices whose mix is shown."""
LOOKED_AT = 500
"""Pairs of a version, first by key, whose judgements are compared; keys are hashes, so that they are a random part."""
MOST_VALUES = 6


class People(NamedTuple):
    """What stands behind a version.

    Attributes:
        pairs: all of it.
        judgements: mean number behind a pair.
        mix: share of the pairs by slice and value, the most frequent values.
        agreement: share of pairs of judgements of the same two answers that say the same; those who judge together.
    """

    version: str
    pairs: int
    judgements: float
    mix: Mapping[str, Mapping[str, float]]
    agreement: Estimate


def people_of(places: Places, versions: Sequence[tuple[str, str]]) -> tuple[People, ...]:
    """What stands behind versions, given as name and digest; those whose folder is gone are left out."""
    found: list[People] = []
    for name, digest in versions:
        try:
            found.append(_people(places, name, digest))
        except VersionError:
            continue
    return tuple(found)


def _people(places: Places, name: str, digest: str) -> People:
    version = load_version(places.versions.directory / digest)
    total = max(1, sum(version.counts.values()))
    mix = {
        slice_: {value: n / total for value, n in sorted(values.items(), key=lambda each: -each[1])[:MOST_VALUES]}
        for slice_ in MIXED
        if (values := version.manifest.slices.get(slice_)) and set(values) != {"unknown"}
    }
    keys = read_judgements(version.path / PAIRS_FILE)
    several = [each for each in keys[:LOOKED_AT] if len(each) > 1]
    with reading(places.store.engine) as connection:
        said = judgements_by_key(connection, [key for each in several for key in each])
    mean = sum(len(each) for each in keys) / max(1, len(keys))
    return People(name, sum(version.counts.values()), mean, mix, _agreement(said.values()))


def _agreement(said: Iterable[Judgement]) -> Estimate:
    """Over all pairs of people who judged the same comparison; comparisons are independent of each other."""
    together: dict[str, list[Verdict]] = defaultdict(list)
    for one in said:
        if isinstance(one.opinion, Pairwise):
            together[one.comparison].append(one.opinion.verdict)
    couples = [(key, a == b) for key, verdicts in together.items() for a, b in combinations(verdicts, 2)]
    return share([float(same) for _, same in couples], [key for key, _ in couples])
