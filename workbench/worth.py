"""What a comparison is worth asking about.

Where the policy is unsure, where policies differ, or where something was forgotten. Each strategy gives numbers of 0 or
more, in proportion to which comparisons are drawn; a share of every draw stays random.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import pstdev
from typing import Literal

from preference_data.records import Comparison, Pair
from preference_data.versions import write_version
from workbench import assembly
from workbench.config import NumericsSettings
from workbench.drift.ledger import Ledger
from workbench.errors import ConfigError
from workbench.places import Places, Watch
from workbench.policies.registry import PolicyRecord
from workbench.tasks import Item, PolicyRef, Progress, Report, ScoreJob, VersionRef
from workbench.views.reading import choose_condition

Strategy = Literal["random", "margin", "disagreement", "forgetting"]

BETA = 0.1
"""Of the implicit reward (Rafailov et al., arXiv 2305.18290, equation 5), as rounds have it by default."""
MAX_LENGTH, BATCH = 1024, 16
Slice = tuple[str, str]


def uncertainty(margin: float) -> float:
    """How unsure a policy is of which answer is better, in [0, 1]: 4 p (1 - p) with p the logistic of the margin.

    >>> uncertainty(0.0)
    1.0
    """
    p = 1 / (1 + math.exp(-max(-700.0, min(700.0, margin))))
    return 4 * p * (1 - p)


def unsure(margins: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """By comparison, how unsure the last policy is; those without a margin are worth nothing."""
    return {key: uncertainty(each[-1]) for key, each in margins.items()}


def differing(margins: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """By comparison, the standard deviation of the policies' margins."""
    return {key: pstdev(each) for key, each in margins.items()}


def implicit_margins(
    comparisons: Iterable[Comparison], policies: Sequence[PolicyRef], base: PolicyRef, *, numerics: NumericsSettings,
    score: Callable[..., None], folder: Path, cache: str, report: Report,
) -> dict[str, list[float]]:  # fmt: skip
    """By comparison, the margin of the first answer over the second under each policy, relative to the base, in nats.

    Comparisons of other than two different answers, and those longer than `MAX_LENGTH` tokens, are left out.
    """
    made = {pair.key: (pair, c.key) for c in comparisons if (pair := _pair(c))}
    pairs = {key: comparison for key, (_, comparison) in made.items()}
    written = write_version((pair for pair, _ in made.values()), folder / "asked", rule={}, watermark=0, head="")
    found: dict[str, dict[str, float]] = {}
    for policy in (*policies, base):
        output = folder / policy.digest
        output.mkdir(exist_ok=True)
        job = ScoreJob(policy, VersionRef(written.digest, str(written.path)), ("train",), numerics, MAX_LENGTH,
                       BATCH, cache, str(output))  # fmt: skip
        score(job, report)
        found[policy.digest] = {key: each.chosen - each.rejected for key, each in assembly.scores_of(output).items()}
    of_base = found[base.digest]
    return {
        comparison: [BETA * (found[policy.digest][pair] - of_base[pair]) for policy in policies]
        for pair, comparison in pairs.items()
        if all(pair in each for each in found.values())
    }


def _pair(comparison: Comparison) -> Pair | None:
    texts = [each.text for each in comparison.completions]
    if len(texts) != 2 or texts[0].strip() == texts[1].strip():
        return None
    return Pair(comparison.prompt, *texts, weight=1.0, strength=None, judgements=(), slices={}, split="train")


def fallen(
    ledger: Ledger, lineage: Sequence[PolicyRecord], versions: Iterable[str], within: str = ""
) -> dict[Slice, float]:
    """By slice, how much accuracy the last policy lost on test pairs against the best policy before it; losses alone.

    Args:
        ledger: everything measured.
        lineage: the base first, the policy asked about last.
        versions: digests of the versions whose test pairs were measured.
        within: slice whose pairs count, such as `language=de`; all where empty.
    """
    *before, last = [policy.digest for policy in lineage]
    condition = choose_condition(ledger, [*before, last]) or ""
    losses: defaultdict[Slice, list[float]] = defaultdict(list)
    for version in versions:
        suite = f"retention/{version}"
        rows = {p: _inside(ledger.items(p, suite, "margin", condition), within) for p in (*before, last)}
        best = max((p for p in before if rows[p]), key=lambda p: _accuracy(rows[p]), default=None)
        if best is None or not rows[last]:
            continue
        now = {row.item: row.value > 0 for row in rows[last]}
        for row in rows[best]:
            for place in row.slices.items():
                losses[place].append((row.value > 0) - now.get(row.item, row.value > 0))
    means = {place: math.fsum(each) / len(each) for place, each in losses.items()}
    return {place: mean for place, mean in means.items() if mean > 0}


def forgotten(comparisons: Iterable[Comparison], losses: Mapping[Slice, float], within: str = "") -> dict[str, float]:
    """By comparison, the largest loss of a slice it belongs to; 0 where none of them lost, or it lies outside `within`."""
    name, _, value = within.partition("=")
    found: dict[str, float] = {}
    for each in comparisons:
        places = {**each.slices, "source": each.source}
        # A slice that pairs alone have, such as their length, leaves no comparison out.
        inside = places.get(name, value) == value
        found[each.key] = max((losses.get(place, 0.0) for place in places.items()), default=0.0) if inside else 0.0
    return found


def _inside(rows: Sequence[Item], within: str) -> list[Item]:
    name, _, value = within.partition("=")
    return [row for row in rows if not within or row.slices.get(name) == value]


def _accuracy(rows: Sequence[Item]) -> float:
    return sum(row.value > 0 for row in rows) / len(rows)


def require_lineage(lineage: Sequence[PolicyRecord], strategy: Strategy) -> None:
    """Refuse what a lineage of that length cannot tell.

    Raises:
        ConfigError: names what is missing.
    """
    least = 3 if strategy == "disagreement" else 2
    if strategy != "random" and len(lineage) < least:
        raise ConfigError(
            f"--strategy {strategy}: the policy has {len(lineage) - 1} policies before it; expected {least - 1} or more; "
            "run a round first, or ask at random"
        )


def worth_by(
    places: Places, strategy: Strategy, where: assembly.Where, watch: Watch, *, policy: str, version: str, within: str
) -> Callable[[Sequence[Comparison]], Mapping[str, float]]:
    """What comparisons are worth to a policy's lineage, under a strategy.

    Args:
        places: the workspace.
        strategy: how it is told.
        where: policies are scored, where they have to be.
        watch: told every progress.
        policy: the newest of the lineage, as `registry.resolve` takes it.
        version: name of the version of which something was forgotten; all of them where empty.
        within: slice in which it was forgotten, such as `language=de`; everything where empty.

    Raises:
        ConfigError: the lineage is too short for it.
        PolicyError: nothing or several policies answer to the name.
        VersionError: nothing or several versions do.
    """
    if strategy == "random":
        return lambda _: {}
    registry = places.registry
    lineage = registry.lineage(registry.resolve(policy).digest)
    require_lineage(lineage, strategy)
    if strategy == "forgetting":
        versions = {places.versions.find(version).digest} if version else {e.digest for e in places.versions.entries()}
        losses = fallen(places.ledger, lineage, versions, within)
        return lambda comparisons: forgotten(comparisons, losses, within)

    def report(progress: Progress) -> bool:
        watch(progress)
        return False

    def by_margins(comparisons: Sequence[Comparison]) -> Mapping[str, float]:
        base, *others = map(registry.ref, lineage)
        staged = places.objects.stage()
        try:
            with assembly.tools(where) as tools:
                margins = implicit_margins(
                    comparisons, others, base, numerics=places.numerics, score=tools.score, folder=staged, cache=places.ledger_url, report=report,
                )  # fmt: skip
        finally:
            places.objects.discard(staged)
        return unsure(margins) if strategy == "margin" else differing(margins)

    return by_margins
