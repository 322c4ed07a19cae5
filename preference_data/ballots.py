"""Which judgements count at a freeze, and how much each of them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from preference_data.errors import VersionError
from preference_data.machines import is_machine
from preference_data.opinions import ADJUDICATED
from preference_data.pairs import Ballot
from preference_data.projects import Projects
from preference_data.records import Comparison, Judgement
from preference_data.reliability import Reliability, reliabilities
from preference_data.store import Entry, Store


class Reader:
    """Tells which judgements count, and counts those that do not.

    A lead's adjudication takes the place of all other judgements of its comparison, if it counts itself. A judgement
    given under a guideline that was withdrawn weighs what the project says.

    Args:
        store: whose annotators and projects count.
        leaves_out: why a comparison is not wanted, empty where it is.
        without: annotators whose judgements are left out.
        machines: what a machine's judgement weighs against a person's, from 0.

    Attributes:
        comparisons: comparisons read, each with a judgement.
        judgements: effective judgements read.
        unused: judgements that do not count, by reason.
    """

    def __init__(
        self, store: Store, *, leaves_out: Callable[[Comparison], str], without: Collection[str], machines: float = 1.0
    ) -> None:
        self._groups = {annotator.handle: annotator.group for annotator in store.annotators()}
        self._settings = {each.name: each.settings for each in Projects(store.engine).all()}
        self._leaves_out, self._without, self._machines = leaves_out, without, machines
        self.comparisons = self.judgements = 0
        self.unused: Counter[str] = Counter()

    def ballots(self, entries: Iterable[Entry]) -> Iterator[Ballot]:
        """The judgements of some comparisons that count."""
        for comparison, given in entries:
            self.comparisons += 1
            self.judgements += len(given)
            if reason := self._leaves_out(comparison):
                self.unused[reason] += len(given)
                continue
            weights = [(each, *self._weight(each)) for each in given]
            final = any(ADJUDICATED in each.flags and not reason for each, _, reason in weights)
            for each, weight, why_not in weights:
                overruled = final and ADJUDICATED not in each.flags
                if reason := why_not or ("adjudicated by a lead" if overruled else ""):
                    self.unused[reason] += 1
                else:
                    yield Ballot(comparison, each, self._groups.get(each.annotator, ""), weight)

    def _weight(self, judgement: Judgement) -> tuple[float, str]:
        """How much a judgement counts by itself, and why it does not."""
        if judgement.annotator in self._without:
            return 0, "annotator left out"
        if is_machine(judgement.annotator) and not self._machines:
            return 0, "a machine's"
        weight = self._machines if is_machine(judgement.annotator) else 1.0
        project, _, change = judgement.guideline.rpartition("/")
        if project in self._settings and change.isdigit() and int(change) < self._settings[project].counts_from:
            weight *= self._settings[project].old_weight
        return weight, "" if weight else "under a guideline that was withdrawn"


def _decides(ballot: Ballot) -> bool:
    return ADJUDICATED in ballot.judgement.flags


def capped(ballots: Sequence[Ballot], share: float, unused: Counter[str]) -> list[Ballot]:
    """At most the largest number of judgements per annotator that keeps each within its share of what is left.

    Which ones stay is decided by their keys: arbitrary, but the same on every machine. A lead's adjudications all stay and
    are not counted: nothing else speaks for their comparisons.

    Raises:
        VersionError: nobody could keep within the share.
    """
    if share == 1:
        return list(ballots)
    given: dict[str, list[Ballot]] = defaultdict(list)
    decided = [ballot for ballot in ballots if _decides(ballot)]
    for ballot in ballots:
        if not _decides(ballot):
            given[ballot.judgement.annotator].append(ballot)
    sizes = [len(own) for own in given.values()]
    most = max(sizes, default=0)
    while most and most > share * sum(min(size, most) for size in sizes):
        most -= 1
    if given and not most:
        raise VersionError(
            f"annotator_cap: no annotator of {len(given)} can keep to a share of {share}; expected at least "
            f"{-(-1 // share):.0f} annotators; raise the cap or collect from more people"
        )
    kept = [each for own in given.values() for each in sorted(own, key=lambda ballot: ballot.judgement.key)[:most]]
    kept += decided
    unused["over the annotator's share"] += len(ballots) - len(kept)
    return kept


def weighed(ballots: Sequence[Ballot], how: Reliability, unused: Counter[str]) -> list[Ballot]:
    """The ballots with the weight of whoever gave them; those of people no better than chance are left out.

    A lead's adjudications stay as they are.
    """
    if how == "alike":
        return list(ballots)
    skills = reliabilities(ballots, how)
    weights = {person: max(0.0, 2 * skill - 1) for person, skill in skills.items()}

    def weight_of(ballot: Ballot) -> float:
        return 1.0 if _decides(ballot) else weights.get(ballot.judgement.annotator, 1.0)

    kept = [each._replace(weight=each.weight * weight_of(each)) for each in ballots if weight_of(each) > 0]
    unused["annotator no better than chance"] += len(ballots) - len(kept)
    return kept
