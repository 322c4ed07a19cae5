"""How well policies tell good single answers from bad ones, of versions that have any."""

import json
from collections.abc import Iterator, Mapping, Sequence

from workbench.config import OF_ANSWERS
from workbench.drift.uncertainty import format_estimate
from workbench.places import Places
from workbench.rounds.journal import RoundRecord
from workbench.rounds.plan import condition_of
from workbench.views.numbers import CHANGE, TOLD_APART, Kin, numbers_of_suite
from workbench.views.reading import Reader
from workbench.views.records import PolicyView, Singles


def singles(read: Reader, policies: Sequence[PolicyView]) -> tuple[Singles, ...]:
    """Every policy but the base, which rewards nothing, on every version with single answers that it was measured on."""
    base = policies[0].digest
    kins = (Kin(base, policies[p.round - 1].digest, p.digest) for p in policies[1:])
    return tuple(one for after, kin in enumerate(kins, 1) for one in _of(read, kin, after))


def singles_of(places: Places, record: RoundRecord) -> tuple[Singles, ...]:
    """The same of the child of a round; nothing where it has none."""
    plan = json.loads(record.plan)
    kin = Kin(plan["base"], plan["parent"], record.child or "")
    return tuple(_of(Reader(places.ledger, condition_of(plan)), kin, record.number)) if record.child else ()


def of_answers(record: RoundRecord) -> bool:
    """Whether a round learned from answers by themselves."""
    return json.loads(record.plan).get("objective", {}).get("loss") in OF_ANSWERS


def said_of_singles(found: Sequence[Singles], names: Mapping[str, str]) -> tuple[tuple[str, str, str], ...]:
    """The same as rows of words: version, AUC, change."""
    return tuple(
        (names.get(one.version, one.version[:12]), format_estimate(one.value), format_estimate(one.change))
        for one in found
    )


def _of(read: Reader, kin: Kin, after: int) -> Iterator[Singles]:
    for suite in dict.fromkeys(one.suite for one in read.measured(kin.own) if one.suite.startswith("singles/")):
        found = numbers_of_suite(read, kin, suite)
        if TOLD_APART in found:
            yield Singles(after, suite.partition("/")[2], found[TOLD_APART], found[CHANGE])
