"""Judgements become pairs, and pairs one immutable dataset version.

All votes on the same prompt and the same two texts count together, from whichever comparison, annotator or import
they come: the majority decides the direction and the net share of the votes is the weight. Equal sides contradict each
other and the pair is dropped; time plays no part, since the time of an import says nothing about the opinion.
"""

import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from preference_data.ballots import Reader, capped, weighed
from preference_data.duplicates import clustered_text
from preference_data.errors import VersionError
from preference_data.garbage import only_new_garbage
from preference_data.pairs import Contest, Placed, Resolved, gather, resolve, single_of, without_twins
from preference_data.records import Comparison, Split
from preference_data.reliability import Reliability
from preference_data.splits import Home, Placing
from preference_data.spool import Spool
from preference_data.store import Assignment, Store
from preference_data.versions import Version, write_spooled

Progress = Callable[[str, int, int | None], None]
"""Called with (stage, done, total) whenever some of a stage is done; what was done since the call before is of that stage.
The total is None where it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeRule:
    """Which judgements become pairs.

    Attributes:
        sources: comparisons of these sources only; empty means all.
        slices: comparisons whose slices have one of the values given for each name; empty means all.
        without: judgements of these annotators are left out, as if they had never been given.
        reliability: how much each annotator's judgements count: all `alike`, or by one of the models of
            `preference_data.reliability`, 2p - 1 for whoever it takes to be right with probability p.
        machines: what a machine's judgement weighs against a person's, in [0, 1]; 0 leaves them out.
        annotator_cap: largest share of the judgements one annotator may give, in (0, 1]; 1 means no limit.
        min_weight: pairs of less weight are dropped, in [0, 1].
        min_pairs: fewest pairs and single answers together each split must have.
        max_pairs: most pairs the version may have, 0 for no limit; those with the smallest keys stay, an arbitrary
            but fixed draw. Single answers are beside them.
    """

    sources: tuple[str, ...] = ()
    slices: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    without: tuple[str, ...] = ()
    reliability: Reliability = "alike"
    machines: float = 1.0
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
        if not 0 <= self.machines <= 1:
            raise ValueError(f"machines: got {self.machines}; expected a weight in [0, 1]")
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
        judgements_left_out: judgements that became neither, by reason. A tie with an edit is counted, its edit used.
        pairs_formed: prompts with two texts that at least one judgement told apart.
        pairs_left_out: formed pairs that are not in the version, by reason.
        pairs_merged: formed pairs with votes from several comparisons.
        pairs_contested: formed pairs with votes both ways that a majority decided.
        bridges: prompts read that resemble prompts of different splits.
        clusters: prompt clusters in the version.
        largest_cluster: pairs in the largest of them.
        counts: pairs per split in the version.
        singles: single answers per split in the version.
        singles_left_out: answers judged by a thumb that stands alone that are not in the version, by reason.
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
    singles: Mapping[Split, int]
    singles_left_out: Mapping[str, int]


class Frozen(NamedTuple):
    """A version and how it came about."""

    version: Version
    report: FreezeReport


@only_new_garbage()
def freeze(
    store: Store, rule: FreezeRule, directory: Path, *, parent: str = "", progress: Progress | None = None
) -> Frozen:
    """Make a dataset version of all that was judged up to now.

    Every prompt judged by now gets its split first, whatever the rule asks for, and keeps it for ever. Two freezes of
    one store must not run at the same time: each would place the new prompts without seeing the other's.

    Texts are read some at a time, so that memory grows by some hundred bytes per pair; rules that weigh annotators
    against each other hold all judgements.

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
    mark = store.watermark()
    choice = _Choice(store, mark.seq, rule, progress or (lambda stage, done, total: None))
    report = choice.make()
    store.assign(choice.assignments())
    _require_enough(report, rule)
    count = len(choice.spool)
    choice.tell("write", 0, count)
    version = write_spooled(
        choice.spool, directory, singles=choice.singles, rule=asdict(rule), watermark=mark.seq, head=mark.head, parent=parent
    )  # fmt: skip
    choice.tell("write", count, count)
    return Frozen(version, report)


@only_new_garbage()
def preview(store: Store, rule: FreezeRule, *, progress: Progress | None = None) -> FreezeReport:
    """What a freeze would count now; nothing is written, and no prompt gets its split."""
    return _Choice(store, store.watermark().seq, rule, progress or (lambda stage, done, total: None)).make()


AT_ONCE = 500
"""Comparisons read at once, and those that share a cluster with the last of them."""


class _Judged:
    """Which comparisons were judged, by prompt; a million of them take about 150 MB."""

    def __init__(self, judged: Iterable[tuple[int, str]]) -> None:
        numbers, keys = array("q"), bytearray()
        for number, key in judged:
            numbers.append(number)
            keys += key.encode()
        self.count = len(numbers)
        unique, prompt = np.unique(np.frombuffer(bytes(keys), dtype="S64"), return_inverse=True)
        self.prompts: list[str] = [key.decode() for key in unique.tolist()]
        self._numbers = np.array(numbers, dtype=np.int64)[np.argsort(prompt, kind="stable")]
        self._starts = np.searchsorted(np.sort(prompt), np.arange(len(unique) + 1))

    def firsts(self) -> NDArray[np.int64]:
        """The number of each prompt's first comparison."""
        return self._numbers[self._starts[:-1]]

    def comparisons(self, prompt: int) -> list[int]:
        """Numbers of a prompt's comparisons, in the order they came."""
        return self._numbers[self._starts[prompt] : self._starts[prompt + 1]].tolist()


def _clusters(judged: _Judged, homes: Sequence[Home | None]) -> Iterator[list[int]]:
    """Prompts of whole clusters with about `AT_ONCE` comparisons; by their first, which lies near those that came then."""
    names = (home.cluster if home else key for home, key in zip(homes, judged.prompts, strict=True))
    _, cluster = np.unique(np.fromiter((name.encode() for name in names), "S64", len(homes)), return_inverse=True)
    firsts = np.full(len(homes), np.iinfo(np.int64).max)
    np.minimum.at(firsts, cluster, judged.firsts())
    began: list[int] = firsts[cluster].tolist()
    found: list[int] = []
    count, last = 0, -1
    for prompt in sorted(range(len(homes)), key=began.__getitem__):
        if count >= AT_ONCE and began[prompt] != last:
            yield found
            found, count = [], 0
        found.append(prompt)
        count, last = count + len(judged.comparisons(prompt)), began[prompt]
    if found:
        yield found


class _Choice:
    """The pairs and single answers of a version, on disk, and the report of how they came about."""

    def __init__(self, store: Store, upto: int, rule: FreezeRule, tell: Progress) -> None:
        self._store, self._upto, self._rule, self.tell = store, upto, rule, tell
        self._placing = Placing()
        self._new: list[Home | None] = []
        self._dropped: Counter[str] = Counter()
        self._singles_dropped: Counter[str] = Counter()
        self._formed = self._contested = self._merged = self._bridges = self._clusters = 0
        self.spool, self.singles = Spool(), Spool()

    def make(self) -> FreezeReport:
        """Choose all pairs.

        Raises:
            VersionError: a cap cannot be held, or there is no room for temporary files.
        """
        try:
            return self._make()
        except OSError as error:
            raise VersionError(
                f"{tempfile.gettempdir()}: cannot keep temporary files ({error.strerror or error}); nothing was frozen; "
                "free space, or name a folder with more in the environment variable TMPDIR"
            ) from error

    def _make(self) -> FreezeReport:
        reader = self._reader()
        counted = self._counted(reader.unused)
        judged = _Judged(self._store.judged(self._upto))
        self.tell("read", 0, judged.count)
        homes = self._homes(judged.prompts)
        done = 0
        for prompts in _clusters(judged, homes):
            numbers = [number for prompt in prompts for number in judged.comparisons(prompt)]
            ballots = reader.ballots(self._store.entries_of(numbers, self._upto))
            if counted is not None:
                ballots = (b._replace(weight=counted[b.judgement.key]) for b in ballots if b.judgement.key in counted)
            contests, alone = gather(ballots, reader.unused)
            done += len(numbers)
            living = {judged.prompts[p]: home for p in prompts if (home := homes[p])}
            resolved, singles = (resolve(each, living, min_weight=self._rule.min_weight) for each in (contests, alone))
            self.tell("read", done, judged.count)
            kept = without_twins(resolved.placed)
            self._add_singles(singles)
            self.tell("duplicates", done, judged.count)
            self._add(contests, resolved, kept)
        if beyond := self.spool.keep(self._rule.max_pairs):
            self._dropped["beyond max_pairs"] += beyond
        return self._report(reader)

    def assignments(self) -> Iterator[Assignment]:
        """Splits of the prompts that have none yet."""
        return self._placing.assignments(self._new)

    def _reader(self) -> Reader:
        rule = self._rule
        return Reader(self._store, leaves_out=rule.leaves_out, without=rule.without, machines=rule.machines)

    def _counted(self, unused: Counter[str]) -> dict[str, float] | None:
        """Weights of the judgements that count, by key, where annotators are weighed against each other."""
        rule = self._rule
        if rule.annotator_cap == 1 and rule.reliability == "alike":
            return None
        ballots = list(self._reader().ballots(self._store.entries(upto=self._upto)))
        kept = weighed(capped(ballots, rule.annotator_cap, unused), rule.reliability, unused)
        return {each.judgement.key: each.weight for each in kept}

    def _homes(self, prompts: Sequence[str]) -> list[Home | None]:
        """Where each prompt lives, assigned already or now; None for bridges and for what was erased."""
        homes: list[Home | None] = [None] * len(prompts)
        settled = bytearray(len(prompts))
        place = 0
        for each in self._store.assignments():  # both are sorted by prompt key
            self._placing.settle(each)
            while place < len(prompts) and prompts[place] < each.prompt_key:
                place += 1
            if place < len(prompts) and prompts[place] == each.prompt_key:
                homes[place], settled[place] = Home(each.cluster, each.split), 1
        new = [place for place, known in enumerate(settled) if not known]
        keys = [prompts[place] for place in new]
        added: list[int] = []
        for done, (where, prompt) in enumerate(self._store.prompts(keys), start=1):
            self._placing.add(keys[where], clustered_text(prompt))
            added.append(new[where])
            self.tell("split", done, len(new))
        self._new = self._placing.place()
        self.tell("split", len(new), len(new))
        self._bridges = self._new.count(None)
        for place, home in zip(added, self._new, strict=True):
            homes[place] = home
        return homes

    def _add(self, contests: Sequence[Contest], resolved: Resolved, kept: Sequence[Placed]) -> None:
        numbers = {name: self._clusters + k for k, name in enumerate({each.cluster: None for each in kept})}
        self._clusters += len(numbers)
        for each in kept:
            self.spool.add(each.pair, numbers[each.cluster])
        self._formed += len(contests)
        self._contested += resolved.contested
        self._merged += sum(len({id(ballot.comparison) for ballot in each.ballots}) > 1 for each in contests)
        self._dropped.update(resolved.dropped)
        self._dropped["near-duplicate pair"] += len(resolved.placed) - len(kept)

    def _add_singles(self, resolved: Resolved) -> None:
        kept = without_twins(resolved.placed)
        for each in kept:
            self.singles.add(single_of(each.pair))
        self._singles_dropped.update(resolved.dropped)
        self._singles_dropped["near-duplicate answer"] += len(resolved.placed) - len(kept)

    def _report(self, reader: Reader) -> FreezeReport:
        sizes = self.spool.cluster_sizes()
        return FreezeReport(
            comparisons=reader.comparisons,
            judgements=reader.judgements,
            judgements_left_out=dict(sorted(reader.unused.items())),
            pairs_formed=self._formed,
            pairs_left_out={reason: count for reason, count in sorted(self._dropped.items()) if count},
            pairs_merged=self._merged,
            pairs_contested=self._contested,
            bridges=self._bridges,
            clusters=len(sizes),
            largest_cluster=int(sizes.max(initial=0)),
            counts=self.spool.splits(),
            singles=self.singles.splits(),
            singles_left_out={reason: count for reason, count in sorted(self._singles_dropped.items()) if count},
        )


def _require_enough(report: FreezeReport, rule: FreezeRule) -> None:
    counts = {split: count + report.singles[split] for split, count in report.counts.items()}
    short = [f"{split} has {count}" for split, count in counts.items() if count < rule.min_pairs]
    if short:
        left_out = Counter({**report.judgements_left_out, **report.pairs_left_out}) + Counter(report.singles_left_out)
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count) or "nothing"
        raise VersionError(
            f"too few pairs: {', '.join(short)}; expected at least {rule.min_pairs} in each split; read "
            f"{report.judgements} judgements, left out: {reasons}; judge more prompts, widen the rule or lower min_pairs"
        )
