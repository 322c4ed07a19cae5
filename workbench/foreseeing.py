"""Which new judgements a policy would have given, before it learned from them."""

from collections.abc import Iterable
from dataclasses import replace

from preference_data.records import Comparison, Judgement, Pair, Pairwise, Verdict
from preference_data.store import Entry
from preference_data.versions import write_version
from workbench import assembly
from workbench.assembly import Where
from workbench.config import RoundSettings
from workbench.places import Places, Watch, silent
from workbench.policies.registry import PolicyRecord
from workbench.rewards import Reward, Said
from workbench.tasks import ScoreJob, VersionRef, reporting


def foreseen(
    places: Places,
    policy: PolicyRecord,
    entries: Iterable[Entry],
    settings: RoundSettings,
    *,
    where: Where = "auto",
    watch: Watch = silent,
) -> list[bool]:
    """Whether the policy finds likelier what each judgement preferred, oldest first; ties are left out.

    What is scored here is in the cache when a round with the same settings needs it.

    Args:
        places: the workspace.
        policy: that did not learn from these judgements.
        entries: comparisons with their judgements.
        settings: precision and length, as of the round to come.
        where: in this process or on Ray.
        watch: told every progress.
    """
    decided = [pair for _, pair in sorted(_decided(entries), key=lambda each: (each[0].at, each[1].key))]
    found = margins(places, policy, decided, settings, where=where, watch=watch)
    return [found[pair.key] > 0 for pair in decided if pair.key in found]


def undecided(comparisons: Iterable[Comparison]) -> dict[str, Pair]:
    """Comparisons of two different answers as pairs that prefer the first, by the comparison's key."""
    found: dict[str, Pair] = {}
    for one in comparisons:
        first, second = (completion.text for completion in one.completions)
        if first.strip() != second.strip():
            found[one.key] = Pair(one.prompt, first, second, 1.0, None, (), {}, "train")
    return found


def margins(
    places: Places,
    policy: PolicyRecord,
    pairs: Iterable[Pair],
    settings: RoundSettings,
    *,
    where: Where = "auto",
    watch: Watch = silent,
) -> dict[str, float]:
    """Log-prob of the preferred answer minus the other's under a policy, nats, by the pair's key; too long ones are left out.

    Args:
        places: the workspace.
        policy: whose.
        pairs: each once.
        settings: precision and length.
        where: in this process or on Ray.
        watch: told every progress.
    """
    distinct = {pair.key: pair for pair in pairs}
    if not distinct:
        return {}
    services = places.services(watch)
    staged = services.objects.stage()
    try:
        written = write_version(distinct.values(), staged / "judged", rule={}, watermark=0, head="")
        output = staged / "scores"
        output.mkdir()
        job = ScoreJob(
            policy=places.registry.ref(policy), version=VersionRef(written.digest, str(written.path)), splits=("train",),
            numerics=settings.numerics, max_length=settings.training.max_length, batch_size=settings.evaluation.batch_size,
            cache=services.cache, output=str(output),
        )  # fmt: skip
        with assembly.tools(where) as tools:
            tools.score(job, reporting(services.watch))
        scores = assembly.scores_of(output)
    finally:
        services.objects.discard(staged)
    return {key: score.margin for key, score in scores.items()}


def foreseen_by_reward(reward: Reward, entries: Iterable[Entry]) -> list[bool]:
    """The same of a reward: whether what each judgement preferred has the higher one; equal ones do not."""
    pairs = [pair for _, pair in sorted(_decided(entries), key=lambda each: (each[0].at, each[1].key))]
    said = [Said(p.prompt, text, p.slices, finished=True) for p in pairs for text in (p.chosen, p.rejected)]
    rewards = reward(said)
    return [rewards[k] > rewards[k + 1] for k in range(0, len(rewards), 2)]


def _decided(entries: Iterable[Entry]) -> Iterable[tuple[Judgement, Pair]]:
    """The last judgement of each comparison that told its answers apart, and the pair it makes; each pair once."""
    known: set[str] = set()
    for entry in entries:
        if not entry.judgements:
            continue
        first, second = (completion.text for completion in entry.comparison.completions)
        pair = Pair(entry.comparison.prompt, first, second, 1.0, None, (), {}, "train")
        match entry.judgements[-1].opinion:
            case Pairwise(verdict=Verdict.FIRST):
                pass
            case Pairwise(verdict=Verdict.SECOND):
                pair = replace(pair, chosen=second, rejected=first)
            case _:
                continue
        if pair.key not in known and first.strip() != second.strip():
            known.add(pair.key)
            yield entry.judgements[-1], pair
