"""What a drift report holds: records of numbers, none of them formatted.

A policy is named by its round (0 is the base), a version by its place among `DriftReport.versions`. A number that was
not measured is an `Estimate` without a value, never 0.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, cast

from workbench.drift.metrics import Turned
from workbench.drift.retention import Named
from workbench.drift.uncertainty import Estimate, not_enough

NOT_MEASURED = not_enough(0, "not measured")

Prompts = Literal["new", "old", "untrained"]
"""Whose prompts were answered: of the version the policy was trained on, of earlier ones, of ones not trained on."""


class NamedVersion(NamedTuple):
    """A dataset version and what people call it."""

    name: str
    digest: str


class PolicyView(NamedTuple):
    """One policy of the lineage.

    Attributes:
        round: rounds between base and policy; 0 for the base.
        made_by: digest of the round that made it; None for a base or an adopted policy.
        version: digest of the version it was trained on; empty where unknown.
        anchors: weight of each anchor by digest, where known.
        update: True if its round replaces the version of the one before it, or the version it replaces.
        online: by what its round learned from fresh answers to its version's prompts, such as `grpo`; empty where from pairs.
    """

    name: str
    digest: str
    round: int
    made_by: str | None
    version: str
    anchors: Mapping[str, float]
    update: bool | str
    champion: bool
    online: str = ""


class VersionView(NamedTuple):
    """One version; `trained_in` is the round that trained on it, None where none has yet."""

    name: str
    digest: str
    trained_in: int | None


class Cell(NamedTuple):
    """One policy on the test pairs of one version.

    Attributes:
        own: the policy was trained on this version, or answered its prompts.
        accuracy: share of pairs with the chosen answer likelier than the rejected.
        above_base: share of pairs whose margin is above the base's.
        margin: mean margin, nats per pair.
        margin_per_token: mean margin with each side divided by its length, nats per token.
        chosen_change: mean change of log p(chosen) from the base, nats per pair.
        by_answer: accuracy per chosen answer, where few distinct ones occur (Yes/No); empty elsewhere.
    """

    round: int
    version: int
    own: bool
    accuracy: Estimate
    above_base: Estimate
    margin: Estimate
    margin_per_token: Estimate
    chosen_change: Estimate
    by_answer: Mapping[str, Estimate]


class Change(NamedTuple):
    """What one round did to the accuracy on one version.

    Attributes:
        kind: the version was trained in this round (`own`), in an earlier one (`earlier`), is replaced by this round
            (`replaced`), or was not trained by then (`untrained`).
        from_parent, from_base: accuracy after minus before, on the same pairs.
        flips: pairs that changed sides between parent and child; None where not measured.
        lost_by_quartile: share of pairs that scored less under the child, by quartile of the parent's margin, the lowest
            first; empty where not measured.
    """

    round: int
    version: int
    kind: Literal["own", "earlier", "replaced", "untrained"]
    from_parent: Estimate
    from_base: Estimate
    flips: Turned | None
    lost_by_quartile: tuple[Estimate, ...] = ()


class Singles(NamedTuple):
    """One policy on the held-out single answers of one version.

    Attributes:
        version: its digest.
        value: share of couples of a good and a bad answer whose good one has the higher implicit reward (AUC).
        change: from the parent, on the same answers.
    """

    round: int
    version: str
    value: Estimate
    change: Estimate


class Average(NamedTuple):
    """A number over all rounds, with the convention it was computed by."""

    name: str
    value: Estimate
    convention: str

    @classmethod
    def of(cls, name: str, named: Named) -> "Average":
        """The average under what people call it."""
        return cls(name, named.value, named.convention)


class Tax(NamedTuple):
    """One policy on one capability suite.

    Attributes:
        suite: full name in the ledger; `name` is its first part.
        unit: of `level`: `accuracy` (higher is better) or `bits per byte` (lower is better).
        tax, step_tax: share lost against base and parent; positive means lost. For text, of the base's (parent's) bits.
        flips: items that changed sides since the base; None for text and where not measured.
    """

    round: int
    suite: str
    name: str
    unit: Literal["accuracy", "bits per byte"]
    level: Estimate
    tax: Estimate
    step_tax: Estimate
    flips: Turned | None


class Divergence(NamedTuple):
    """KL of a policy to an earlier one on its own answers, nats per token.

    Attributes:
        roles: what the other policy is to it: `base`, `parent`, `anchor 0.50`.
        value: KL(policy || other).
        back: KL(other || policy) at the same positions.
    """

    round: int
    version: int
    prompts: Prompts
    other: str
    roles: tuple[str, ...]
    value: Estimate
    back: Estimate


class Compliance(NamedTuple):
    """How well answers follow a guideline, as a score per answer, and its change from the base."""

    guideline: str
    value: Estimate
    change: Estimate


class Answers(NamedTuple):
    """What one policy answered to test prompts of one version.

    Attributes:
        length: tokens per answer.
        length_change: from the base, on the same prompts.
        distinct_2: distinct word pairs over all word pairs.
        finished: share that ended before the limit of tokens.
        refused: share that refused.
    """

    round: int
    version: int
    prompts: Prompts
    length: Estimate
    length_change: Estimate
    distinct_2: Estimate
    finished: Estimate
    refused: Estimate
    compliance: tuple[Compliance, ...]


class Refusals(NamedTuple):
    """Share of probes refused; `label` is `safe` where they should be answered, and its change from the base."""

    round: int
    label: str
    rate: Estimate
    change: Estimate


class Said(NamedTuple):
    """What one policy answered."""

    round: int
    text: str


class Example(NamedTuple):
    """One test prompt with the answer of every policy that was given it, the base first."""

    version: int
    item: str
    prompt: str
    answers: tuple[Said, ...]


class DriftReport(NamedTuple):
    """What the rounds of a lineage gained, lost and moved.

    Attributes:
        policies: the base first; the place is the round.
        versions: round t trained on place t - 1; further ones were not trained on yet.
        condition: ledger key of how everything here was measured; None where nothing was.
        cells: by policy and version.
        changes: for every round, one per version.
        averages: over the rounds; without values until there are two.
        taxes, divergences, answers, refusals: in the order of policies.
        examples: answers before and after.
        singles: by policy and version that has any.
    """

    policies: tuple[PolicyView, ...]
    versions: tuple[VersionView, ...]
    condition: str | None
    cells: tuple[tuple[Cell, ...], ...]
    changes: tuple[Change, ...]
    averages: tuple[Average, ...]
    taxes: tuple[Tax, ...]
    divergences: tuple[Divergence, ...]
    answers: tuple[Answers, ...]
    refusals: tuple[Refusals, ...]
    examples: tuple[Example, ...]
    singles: tuple[Singles, ...] = ()

    @property
    def rounds(self) -> int:
        """Rounds done."""
        return len(self.policies) - 1


def as_json(value: Any) -> Any:
    """A report, or any part of one, as JSON values; a number that is not finite becomes None."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(k): as_json(v) for k, v in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [as_json(one) for one in cast("list[Any] | tuple[Any, ...]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value
