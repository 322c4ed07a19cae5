"""What a drift page reads: a lineage with its rounds, numbers and rows, from a workspace that nobody has to load."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import func, select

from preference_data.database import reading
from workbench.drift.uncertainty import Estimate, not_enough
from workbench.places import Places
from workbench.policies.champion import Move
from workbench.policies.lineage import points_between, superseded
from workbench.policies.records import PolicyRecord
from workbench.rejecting import rejections
from workbench.reward_list import RewardModels
from workbench.rounds.journal import RoundRecord
from workbench.rounds.plan import condition_of
from workbench.schema import measured
from workbench.views.kept import Key, Numbers
from workbench.views.numbers import CHANGE, OF_QUARTER, TOLD_APART
from workbench.views.reading import choose_condition
from workbench.views.records import NOT_MEASURED, NamedVersion, PolicyView, VersionView
from workbench.views.report import columns_of, policy_view

SHOULD = {"refused unsafe": "refuse", "refused safe": "answer"}
"""Shares of probes refused, and what a policy should do with such probes."""
NAMES = (
    "accuracy", "from parent", "from base", "overconfident", "level", "tax", "step tax", "length", "distinct-2", "refused",
    *SHOULD, *(f"{name} from parent" for name in SHOULD), TOLD_APART, CHANGE,
)  # fmt: skip
"""Numbers that are drawn over all rounds, and KL both ways."""
NEW_NAMES = ("lost", "gained", *OF_QUARTER)
"""Numbers that are drawn of the newest rounds."""
NEWEST = 2


@dataclass(frozen=True)
class Overview:
    """A lineage as it is drawn.

    Attributes:
        policies: the base first; the place is the round.
        versions: round t trained on place t - 1; further ones were not trained on.
        condition: how was measured; None where nothing was.
        slice: as `language=de`; empty for all items.
        numbers: by policy, name and suite.
        slices: slices there are numbers of.
        between: digests of mixtures of the newest policy with its parent that were measured, by its share.
    """

    policies: tuple[PolicyView, ...]
    versions: tuple[VersionView, ...]
    condition: str | None
    slice: str
    numbers: Mapping[Key, Estimate]
    slices: tuple[str, ...]
    between: Mapping[float, str] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """Rounds done."""
        return len(self.policies) - 1

    def number(self, policy: str, name: str, suite: str) -> Estimate:
        """One number; where there is none, why."""
        missing = not_enough(0, f"not measured, or too few of {self.slice}") if self.slice else NOT_MEASURED
        return self.numbers.get((policy, name, suite), missing)

    @cached_property
    def _suites(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, set[str]] = {}
        for _, name, suite in self.numbers:
            found.setdefault(name, set()).add(suite)
        return {name: tuple(sorted(suites)) for name, suites in found.items()}

    def suites(self, name: str) -> tuple[str, ...]:
        """Suites that a number was computed of for any policy, sorted."""
        return self._suites.get(name, ())

    @cached_property
    def trained(self) -> tuple[VersionView, ...]:
        """Versions the lineage was trained on, each once, the first time it was."""
        found: dict[str, VersionView] = {}
        for version in self.versions:
            if version.trained_in is not None:
                found.setdefault(version.digest, version)
        return tuple(found.values())

    @cached_property
    def distinct(self) -> tuple[VersionView, ...]:
        """All versions, each once."""
        return tuple({version.digest: version for version in reversed(self.versions)}.values())[::-1]

    @cached_property
    def replaced(self) -> frozenset[str]:
        """Versions whose preference a later round replaced."""
        return self.replaced_by[-1]

    @cached_property
    def replaced_by(self) -> tuple[frozenset[str], ...]:
        """Versions whose preference was replaced, by the number of rounds done: what a later one replaces was not yet."""
        made = [(p.version, p.update) for p in self.policies]
        return tuple(superseded(one for one in made[: t + 1] if one[0]) for t in range(len(made)))


class Branch(NamedTuple):
    """A policy among all policies.

    Attributes:
        round: the round that made it; None for a base or what was adopted.
        depth: rounds from its base.
        rejected: by hand.
    """

    policy: PolicyRecord
    round: RoundRecord | None
    depth: int
    champion: bool
    rejected: bool

    @property
    def state(self) -> str:
        """What became of it: what people said of it stands over what its round did."""
        return "rejected" if self.rejected else self.round.state if self.round else self.policy.origin


class Inspection:
    """Reads a workspace for people. Nothing is loaded; what is written are numbers that can be computed again."""

    def __init__(self, places: Places) -> None:
        """Read a workspace."""
        self.places = places

    def branches(self) -> tuple[Branch, ...]:
        """All policies, oldest first."""
        registry = self.places.registry
        rounds = {r.digest: r for r in self.rounds()}
        champion, gone = registry.resolve("champion").digest, rejections(self.places)
        found: list[Branch] = []
        depths: dict[str, int] = {}
        for record in registry.policies():
            depths[record.digest] = 0 if record.parent is None else depths.get(record.parent, 0) + 1
            mine = rounds.get(record.round or "")
            at = depths[record.digest]
            found.append(Branch(record, mine, at, record.digest == champion, record.digest in gone))
        return tuple(found)

    def rounds(self) -> tuple[RoundRecord, ...]:
        """All rounds, oldest first, those without a child as well."""
        return self.places.journal.rounds()

    def childless(self) -> tuple[RoundRecord, ...]:
        """Rounds that have no policy to show: failed, stopped, or still running; oldest first."""
        return tuple(r for r in self.rounds() if r.child is None)

    def moves(self) -> Sequence[Move]:
        """Where the champion was, oldest first."""
        return self.places.registry.history()

    def stamp(self) -> tuple[object, ...]:
        """Changes whenever something was frozen, made, measured, begun, ended, promoted or rejected."""
        with reading(self.places.engine) as connection:
            measured_rows = connection.execute(select(func.count(), func.sum(measured.c.n)).select_from(measured)).one()
        states = tuple((r.digest, r.state) for r in self.rounds())
        return (*measured_rows, states, len(self.moves()), len(self.places.registry.policies()),
                len(RewardModels(self.places).entries()), len(self.places.versions.entries()), *rejections(self.places))  # fmt: skip

    def newest(self) -> str:
        """Digest of the child of the last round that has one; the champion where there is none."""
        known = {b.policy.digest for b in self.branches()}
        made = [r.child for r in self.rounds() if r.child in known]
        return str(made[-1]) if made else self.places.registry.resolve("champion").digest

    def overview(
        self, policy: str, *, within: str = "", told: Callable[[int, int], None] = lambda *_: None
    ) -> Overview:
        """The lineage of a policy with its numbers; those not kept yet are computed.

        Args:
            policy: as `registry.resolve` takes it.
            within: slice, such as `language=de`.
            told: how many policies were computed, and of how many.

        Raises:
            PolicyError: nothing or several policies answer to the name.
        """
        registry = self.places.registry
        lineage = registry.lineage(registry.resolve(policy).digest)
        champion = registry.resolve("champion").digest
        policies = tuple(policy_view(record, t, champion) for t, record in enumerate(lineage))
        versions = columns_of(policies, [NamedVersion(e.name, e.digest) for e in self.places.versions.entries()])
        condition = self.condition(lineage)
        if condition is None:
            return Overview(policies, versions, None, within, {}, ())
        kept, digests = Numbers(self.places.engine, condition), [p.digest for p in policies]
        kept.keep(digests, told)
        found = kept.read(digests, NAMES, within=within, like="kl")
        found |= kept.read(digests[-NEWEST:], NEW_NAMES, within=within)
        mixed = points_between(digests[-2], digests[-1]) if len(digests) > 1 else {}
        found |= kept.read(mixed.values(), ("accuracy", "tax"), within=within)
        known = {policy for policy, _, _ in found}
        between = {share: name for share, name in mixed.items() if name in known}
        return Overview(policies, versions, condition, within, found, kept.slices(digests[-1]), between)

    def condition(self, lineage: Sequence[PolicyRecord]) -> str | None:
        """How the newest round of a lineage measured; what its policies share where no round is known."""
        rounds = {r.digest: r for r in self.rounds()}
        for record in reversed(lineage):
            if made := rounds.get(record.round or ""):
                return condition_of(json.loads(made.plan))
        return choose_condition(self.places.ledger, [record.digest for record in lineage])

    def plan_of(self, record: RoundRecord) -> dict[str, Any]:
        """What a round was asked to do."""
        return json.loads(record.plan)

    def names(self) -> dict[str, str]:
        """What people call versions and policies, by digest."""
        found = {e.digest: e.name for e in self.places.versions.entries()}
        return found | {record.digest: record.name for record in self.places.registry.policies()}
