"""Who taught each version and whether they agreed, beside what the model did: drift of people is not drift of the model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from preference_data.database import reading
from preference_data.errors import VersionError
from preference_data.freeze import FreezeRule
from preference_data.machines import is_machine
from preference_data.opinions import ADJUDICATED
from preference_data.pair_table import read_judgements
from preference_data.queries import judged_by_several
from preference_data.records import Judgement, Pairwise, Verdict
from preference_data.store import Store
from preference_data.versions import PAIRS_FILE, Manifest, load_version
from preference_data.votes import SET_ASIDE
from workbench.drift.uncertainty import Estimate, share
from workbench.places import Places

MIXED = ("annotator_group", "source", "language", "domain", "length_band")
"""Slices whose mix is shown."""
LOOKED_AT = 500
"""Comparisons behind a version, first by key, whose judgements are compared; keys are hashes, so that they are a random part."""
MOST_VALUES = 6


class People(NamedTuple):
    """What stands behind a version.

    Attributes:
        pairs: all of it.
        judgements: mean number behind a pair.
        mix: share of the pairs by slice and value, the most frequent values.
        agreement: share of pairs of people who said the same of a comparison, of what the version could be made of: ties
            count, and so does what contradicts itself and became no pair.
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
    mean = sum(len(each) for each in keys) / max(1, len(keys))
    return People(name, sum(version.counts.values()), mean, mix, _agreement(_behind(places.store, version.manifest)))


def _behind(store: Store, manifest: Manifest) -> Iterator[tuple[str, list[Verdict]]]:
    """What people said of comparisons that several judged and the version's rule asked for, whatever became of them."""
    rule = manifest.rule
    asked = FreezeRule(
        sources=tuple(rule.get("sources", ())),
        slices={name: tuple(values) for name, values in rule.get("slices", {}).items()},
    )
    with reading(store.engine) as connection:
        numbers = judged_by_several(connection, manifest.watermark, asked.sources, LOOKED_AT)
    for comparison, given in store.entries_of(numbers, manifest.watermark):
        if not asked.leaves_out(comparison):
            counted = [each for each in given if each.annotator not in rule.get("without", ()) and _is_own(each)]
            yield comparison.key, [each.opinion.verdict for each in counted if isinstance(each.opinion, Pairwise)]


def _is_own(judgement: Judgement) -> bool:
    """Whether a person said it on an equal footing with others."""
    return not is_machine(judgement.annotator) and not {*SET_ASIDE, ADJUDICATED} & set(judgement.flags)


def _agreement(said: Iterable[tuple[str, Sequence[Verdict]]]) -> Estimate:
    """Over all pairs of people who judged the same comparison; comparisons are independent of each other."""
    couples = [(key, a == b) for key, verdicts in said for a, b in combinations(verdicts, 2)]
    return share([float(same) for _, same in couples], [key for key, _ in couples])
