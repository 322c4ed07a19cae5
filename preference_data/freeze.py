"""Judgements become pairs, and pairs one immutable dataset version.

All votes on the same prompt and the same two texts count together, from whichever comparison, annotator or import
they come: the majority decides the direction and the net share of the votes is the weight. Equal sides contradict each
other and the pair is dropped; time plays no part, since the time of an import says nothing about the opinion.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple, get_args

from preference_data.ballots import capped, read_ballots, weighed
from preference_data.duplicates import clustered_text
from preference_data.errors import VersionError
from preference_data.pairs import Placed, gather, resolve, without_twins
from preference_data.records import SPLITS, Comparison, Prompt, Split
from preference_data.reliability import Reliability
from preference_data.splits import Home, decide
from preference_data.store import Assignment, Store
from preference_data.versions import Version, write_version

Progress = Callable[[str, int, int | None], None]
"""Called with (stage, done, total); the total is None where it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeRule:
    """Which judgements become pairs.

    Attributes:
        sources: comparisons of these sources only; empty means all.
        slices: comparisons whose slices have one of the values given for each name; empty means all.
        without: judgements of these annotators are left out, as if they had never been given.
        reliability: how much each annotator's judgements count: all `alike`, or by one of the models of
            `preference_data.reliability`, 2p - 1 for whoever it takes to be right with probability p.
        annotator_cap: largest share of the judgements one annotator may give, in (0, 1]; 1 means no limit.
        min_weight: pairs of less weight are dropped, in [0, 1].
        min_pairs: fewest pairs each split must have.
        max_pairs: most pairs the version may have, 0 for no limit; those with the smallest keys stay, an arbitrary
            but fixed draw.
    """

    sources: tuple[str, ...] = ()
    slices: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    without: tuple[str, ...] = ()
    reliability: Reliability = "alike"
    annotator_cap: float = 1.0
    min_weight: float = 0.0
    min_pairs: int = 1
    max_pairs: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers out of range.

        Raises:
            ValueError: a number is out of range; names the field.
        """
        if not 0 < self.annotator_cap <= 1:
            raise ValueError(f"annotator_cap: got {self.annotator_cap}; expected a share in (0, 1]")
        if not 0 <= self.min_weight <= 1:
            raise ValueError(f"min_weight: got {self.min_weight}; expected a weight in [0, 1]")
        if self.min_pairs < 0:
            raise ValueError(f"min_pairs: got {self.min_pairs}; expected 0 or more")
        if self.reliability not in get_args(Reliability):
            raise ValueError(f"reliability: got {self.reliability!r}; expected {', '.join(get_args(Reliability))}")
        if self.max_pairs < 0:
            raise ValueError(f"max_pairs: got {self.max_pairs}; expected 0 for no limit, or more")

    def leaves_out(self, comparison: Comparison) -> str:
        """Why a comparison is not for this version, empty where it is."""
        if self.sources and comparison.source not in self.sources:
            return "source not asked for"
        if any(comparison.slices.get(name) not in values for name, values in self.slices.items()):
            return "slice not asked for"
        return ""


@dataclass(frozen=True, slots=True)
class FreezeReport:
    """What a freeze read, made and left out.

    Attributes:
        comparisons: comparisons read, each with a judgement.
        judgements: effective judgements read.
        judgements_left_out: judgements that became no pair, by reason. A tie with an edit is counted, its edit used.
        pairs_formed: prompts with two texts that at least one judgement told apart.
        pairs_left_out: formed pairs that are not in the version, by reason.
        pairs_merged: formed pairs with votes from several comparisons.
        pairs_contested: formed pairs with votes both ways that a majority decided.
        bridges: prompts read that resemble prompts of different splits.
        clusters: prompt clusters in the version.
        largest_cluster: pairs in the largest of them.
        counts: pairs per split in the version.
    """

    comparisons: int
    judgements: int
    judgements_left_out: Mapping[str, int]
    pairs_formed: int
    pairs_left_out: Mapping[str, int]
    pairs_merged: int
    pairs_contested: int
    bridges: int
    clusters: int
    largest_cluster: int
    counts: Mapping[Split, int]


class Frozen(NamedTuple):
    """A version and how it came about."""

    version: Version
    report: FreezeReport


def freeze(
    store: Store, rule: FreezeRule, directory: Path, *, parent: str = "", progress: Progress | None = None
) -> Frozen:
    """Make a dataset version of all that was judged up to now.

    Every prompt judged by now gets its split first, whatever the rule asks for, and keeps it for ever. Two freezes of
    one store must not run at the same time: each would place the new prompts without seeing the other's.

    Args:
        store: where the judgements are and the splits are kept.
        rule: which judgements become pairs.
        directory: folder of all versions.
        parent: digest of the version this one follows.
        progress: told of each stage as it goes on.

    Returns:
        The version, and a report that counts all that is not in it.

    Raises:
        VersionError: too few pairs in a split, a cap that cannot be held, or the version cannot be written.
    """
    tell: Progress = progress or (lambda stage, done, total: None)
    mark = store.watermark()
    kept, report, assignments = _choose(store, mark.seq, rule, tell)
    store.assign(assignments)
    _require_enough(report, rule)
    tell("write", 0, len(kept))
    pairs = [each.pair for each in kept]
    version = write_version(pairs, directory, rule=asdict(rule), watermark=mark.seq, head=mark.head, parent=parent)
    tell("write", len(kept), len(kept))
    return Frozen(version, report)


def preview(store: Store, rule: FreezeRule, *, progress: Progress | None = None) -> FreezeReport:
    """What a freeze would count now; nothing is written, and no prompt gets its split."""
    return _choose(store, store.watermark().seq, rule, progress or (lambda stage, done, total: None))[1]


def _choose(
    store: Store, upto: int, rule: FreezeRule, tell: Progress
) -> tuple[list[Placed], FreezeReport, Sequence[Assignment]]:
    """The pairs of a version, the report of how they came about, and the splits that new prompts would get."""
    read = read_ballots(
        store, upto, leaves_out=rule.leaves_out, without=rule.without, tell=lambda done: tell("read", done, None)
    )
    ballots = weighed(capped(read.ballots, rule.annotator_cap, read.unused), rule.reliability, read.unused)
    contests = gather(ballots, read.unused)
    homes, assignments, bridges = _homes(store, read.prompts, tell)
    placed, dropped, contested = resolve(contests, homes, min_weight=rule.min_weight)
    kept = without_twins(placed, lambda done, total: tell("duplicates", done, total))
    dropped["near-duplicate pair"] += len(placed) - len(kept)
    if rule.max_pairs:
        dropped["beyond max_pairs"] += max(len(kept) - rule.max_pairs, 0)
        kept = sorted(kept, key=lambda each: each.pair.key)[: rule.max_pairs]
    clusters = Counter(each.cluster for each in kept)
    report = FreezeReport(
        comparisons=read.comparisons,
        judgements=read.judgements,
        judgements_left_out=dict(sorted(read.unused.items())),
        pairs_formed=len(contests),
        pairs_left_out={reason: count for reason, count in sorted(dropped.items()) if count},
        pairs_merged=sum(len({id(ballot.comparison) for ballot in each.ballots}) > 1 for each in contests),
        pairs_contested=contested,
        bridges=bridges,
        clusters=len(clusters),
        largest_cluster=max(clusters.values(), default=0),
        counts=_counts(kept),
    )
    return kept, report, assignments


def _homes(
    store: Store, prompts: Mapping[str, Prompt], tell: Progress
) -> tuple[dict[str, Home], Sequence[Assignment], int]:
    """Where every prompt lives, assigned already or now; the new assignments; and the number of bridges."""
    assigned = list(store.assignments())
    texts = {key: clustered_text(prompt) for key, prompt in prompts.items()}
    decision = decide(texts, assigned, lambda done, total: tell("split", done, total))
    everyone = (*assigned, *decision.assignments)
    homes = {each.prompt_key: Home(each.cluster, each.split) for each in everyone}
    return homes, decision.assignments, len(decision.bridges)


def _counts(kept: list[Placed]) -> dict[Split, int]:
    counts = Counter(each.pair.split for each in kept)
    return {split: counts[split] for split in SPLITS}


def _require_enough(report: FreezeReport, rule: FreezeRule) -> None:
    short = [f"{split} has {count}" for split, count in report.counts.items() if count < rule.min_pairs]
    if short:
        left_out = {**report.judgements_left_out, **report.pairs_left_out}
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count) or "nothing"
        raise VersionError(
            f"too few pairs: {', '.join(short)}; expected at least {rule.min_pairs} in each split; read "
            f"{report.judgements} judgements, left out: {reasons}; judge more prompts, widen the rule or lower min_pairs"
        )
