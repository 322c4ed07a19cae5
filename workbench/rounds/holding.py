"""What a round is held by: anchors with their weights, and the pairs of earlier rounds it trains on again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

from preference_data.records import Pair, Split
from preference_data.versions import load_version
from workbench.answers import answers_of, mismatched
from workbench.completions import SlicedPrompt, read_answered
from workbench.models.score_table import PairScore, read_table
from workbench.rounds.plan import replaced
from workbench.rounds.replay import mixed, replayed, without_contradictions
from workbench.rounds.schedules import NEEDS_ACCURACY, Judged, by_age, by_drift, by_slice
from workbench.tasks import Anchor, Plan, PolicyRef, SliceWeights, VersionRef

Table = Mapping[str, PairScore]
"""Scores by pair key."""


class Held(NamedTuple):
    """Anchors of a round; weights that depend on the pair go before the anchors' own."""

    anchors: tuple[Anchor, ...]
    by_slice: SliceWeights | None


def earlier_versions(plan: Plan) -> dict[int, VersionRef]:
    """Versions of the lineage's rounds by their age, 1 the newest; repeats, the new one and replaced ones left out."""
    found: dict[int, VersionRef] = {}
    left_out = {plan.version.digest, *replaced(plan)}
    for age, past in enumerate(reversed(plan.lineage), 1):
        known = left_out.union(each.digest for each in found.values())
        if past.version and past.version.digest not in known:
            found[age] = past.version
    return found


def held(plan: Plan, select_scores: Callable[[PolicyRef, VersionRef], Table]) -> Held:
    """The anchors of a round.

    Args:
        plan: the round.
        select_scores: of the select pairs of a version under a policy; called only by rules that look at accuracy.
    """
    rounds = {len(plan.lineage) - age: version for age, version in earlier_versions(plan).items()}
    if plan.schedule.kind in NEEDS_ACCURACY:
        judged = {t: _judged(plan, version, select_scores) for t, version in rounds.items()}
        if plan.schedule.kind == "drift":
            return Held(by_drift(plan.anchors, judged, plan.schedule), None)
        return Held(plan.anchors, by_slice(plan.anchors, judged, plan.schedule))
    if plan.schedule.kind in {"origin", "learner", "apart"}:
        ages = {age: len(plan.lineage) - age for age in earlier_versions(plan)}
        return Held(plan.anchors, by_age(plan.anchors, ages, plan.schedule))
    return Held(plan.anchors, None)


class Steps(Protocol):
    """What mixing needs of a round."""

    def score(self, policy: PolicyRef, version: VersionRef, split: Split) -> str:
        """Folder with the scores of one split under one policy."""
        ...

    def write(self, name: str, pairs: Callable[[], Iterable[Pair]]) -> VersionRef:
        """A step that writes pairs as a version of its own."""
        ...

    def answer(self, prompts: Sequence[SlicedPrompt]) -> Path:
        """A step in which the parent answers prompts, some times each."""
        ...


def training_pairs(plan: Plan, steps: Steps) -> VersionRef:
    """What a round trains on: the pairs of its version, and what is replayed of earlier rounds; or their answers by themselves."""
    old = earlier_versions(plan)
    if plan.objective.of_answers:
        return steps.write("answers", lambda: _training_answers(plan, old if plan.replay.on else {}))
    if not plan.replay.on or not old:
        return plan.version
    margins: dict[str, float] = {}
    if plan.replay.choice == "margin":
        folders = [steps.score(plan.parent, version, "train") for version in old.values()]
        margins = {key: score.margin for folder in folders for key, score in read_table(Path(folder)).items()}
    new = load_version(Path(plan.version.path)).pairs("train")
    earlier = {age: load_version(Path(version.path)).pairs("train") for age, version in old.items()}
    if plan.replay.choice == "margin":  # pairs that are too long have none
        earlier = {age: [pair for pair in pairs if pair.key in margins] for age, pairs in earlier.items()}
    if plan.replay.answers == "kept":
        epochs = plan.training.epochs
        return steps.write("mix", lambda: mixed(new, earlier, plan.replay, margins, epochs=epochs))
    again = answered_again(plan, steps, replayed(new, earlier, plan.replay, margins))
    (left,) = without_contradictions(new, {1: again}).values()
    return steps.write("mix", lambda: [*mixed(new, {}, plan.replay, margins), *left])


def _training_answers(plan: Plan, old: Mapping[int, VersionRef]) -> list[Pair]:
    new = answers_of(load_version(Path(plan.version.path)))
    earlier = {age: answers_of(load_version(Path(version.path))) for age, version in old.items()}
    return mismatched(mixed(new, earlier, plan.replay, {}, epochs=plan.training.epochs), plan.training.seed)


def answered_again(plan: Plan, steps: Steps, pairs: Sequence[Pair]) -> list[Pair]:
    """The prompts of pairs with two fresh answers of the parent, ranked by its implicit reward.

    That reward is beta log (parent / base) (Rafailov et al., arXiv 2305.18290), so that the frozen parent is the judge.
    Prompts whose two answers agree, are empty or did not come to an end give no pair.
    """
    by_prompt = {pair.prompt.key: pair for pair in pairs}
    folder = steps.answer([SlicedPrompt(pair.prompt, pair.slices) for pair in by_prompt.values()])
    fresh = [
        replace(by_prompt[prompt.key], chosen=texts[0], rejected=texts[1], strength=None, judgements=())
        for prompt, _, texts, finished in read_answered(folder)
        if texts[0] != texts[1] and all(text.strip() for text in texts) and all(finished)
    ]
    candidates = steps.write("candidates", lambda: fresh)
    parent, base = (read_table(Path(steps.score(p, candidates, "train"))) for p in (plan.parent, plan.base))
    return [
        pair if parent[pair.key].margin >= base[pair.key].margin
        else replace(pair, chosen=pair.rejected, rejected=pair.chosen)
        for pair in fresh
        if pair.key in parent
    ]  # fmt: skip


def _judged(plan: Plan, version: VersionRef, scores: Callable[[PolicyRef, VersionRef], Table]) -> Judged:
    pairs = load_version(Path(version.path)).pairs("select")
    tables = [scores(past.policy, version) for past in plan.lineage]
    return Judged(pairs, [{key: score.margin for key, score in table.items()} for table in tables])
