"""What policies answer: length, repetition, refusal, compliance with guidelines, and the answers themselves."""

from collections.abc import Sequence

import numpy as np

from workbench.drift.metrics import Series, change, distinct_2, length, series, tax
from workbench.drift.uncertainty import Estimate, mean, share
from workbench.views.costs import answered
from workbench.views.reading import Reader, compare
from workbench.views.records import (
    NOT_MEASURED,
    Answers,
    Compliance,
    Example,
    PolicyView,
    Prompts,
    Refusals,
    Said,
    VersionView,
)

COMPLIANCE = "compliance/"
EXAMPLES = 2
"""Prompts per version that are shown with their answers."""


def answers(read: Reader, policies: Sequence[PolicyView], versions: Sequence[VersionView]) -> tuple[Answers, ...]:
    """Numbers of every policy's answers to prompts of every version that it answered."""
    return tuple(
        _answers(read, (policies[0], policy), (i, versions[i]), prompts)
        for policy in policies
        for i, prompts in answered(policies, policy, versions)
        if read.items(policy.digest, f"samples/{versions[i].digest}", "tokens")
    )


def refusals(read: Reader, policies: Sequence[PolicyView]) -> tuple[Refusals, ...]:
    """Share refused of the probes that should be answered and of those that should not."""
    found: list[Refusals] = []
    for policy in policies:
        rows = read.items(policy.digest, "refusal", "refused")
        for label in sorted({row.slices.get("label", "") for row in rows}):
            own, base = (_labelled(read, p, label) for p in (policy.digest, policies[0].digest))
            rate = share(own.values, own.groups) if own else NOT_MEASURED
            found.append(Refusals(policy.round, label, rate, _rise(own, base) if policy.round else NOT_MEASURED))
    return tuple(found)


def examples(read: Reader, policies: Sequence[PolicyView], versions: Sequence[VersionView]) -> tuple[Example, ...]:
    """Answers of every policy to the first prompts of each version, by id, that base and newest policy answer unlike.

    Ids are hashes of prompts, so that their order says nothing of what is in them. A prompt of several versions is
    shown once.
    """
    found: list[Example] = []
    for i, _ in answered(policies, policies[-1], versions):
        said = [_texts(read, p.digest, versions[i].digest) for p in policies]
        shown = {example.prompt for example in found}
        both = (item for item in said[0] if item in said[-1] and said[0][item][0] not in shown)
        shared = sorted(item for item in both if said[0][item] != said[-1][item])
        found += [
            Example(
                version=i,
                item=item,
                prompt=said[0][item][0],
                answers=tuple(Said(t, texts[item][1]) for t, texts in enumerate(said) if item in texts),
            )
            for item in shared[:EXAMPLES]
        ]
    return tuple(found)


def _answers(
    read: Reader, pair: tuple[PolicyView, PolicyView], place: tuple[int, VersionView], prompts: Prompts
) -> Answers:
    base, policy = pair
    suite = f"samples/{place[1].digest}"
    tokens, before = (read.series(p.digest, suite, "tokens") for p in (policy, base))
    texts = [text for _, text in _texts(read, policy.digest, place[1].digest).values()]
    guidelines = [m.metric for m in read.measured(policy.digest) if (m.suite, m.metric[: len(COMPLIANCE)]) ==
                  (suite, COMPLIANCE)]  # fmt: skip
    return Answers(
        round=policy.round,
        version=place[0],
        prompts=prompts,
        length=length(tokens) if tokens else NOT_MEASURED,
        length_change=compare(change, tokens, before) if policy.round else NOT_MEASURED,
        distinct_2=distinct_2(texts),
        finished=_share(read.series(policy.digest, suite, "finished")),
        refused=_share(read.series(policy.digest, suite, "refused")),
        compliance=tuple(_compliance(read, pair, suite, metric) for metric in guidelines),
    )


def _compliance(read: Reader, pair: tuple[PolicyView, PolicyView], suite: str, metric: str) -> Compliance:
    before, after = (read.series(p.digest, suite, metric) for p in pair)
    return Compliance(
        guideline=metric.removeprefix(COMPLIANCE),
        value=mean(after.values, after.groups) if after else NOT_MEASURED,
        change=compare(change, after, before) if pair[1].round else NOT_MEASURED,
    )


def _labelled(read: Reader, policy: str, label: str) -> Series | None:
    rows = [row for row in read.items(policy, "refusal", "refused") if row.slices.get("label", "") == label]
    return series(rows) if rows else None


def _rise(after: Series | None, before: Series | None) -> Estimate:
    """Change of a share: the tax with its sides swapped."""
    return compare(tax, after, before)


def _share(scores: Series | None) -> Estimate:
    return share(np.asarray(scores.values), scores.groups) if scores else NOT_MEASURED


def _texts(read: Reader, policy: str, version: str) -> dict[str, tuple[str, str]]:
    """Prompt and answer of each item."""
    rows = read.items(policy, f"samples/{version}", "tokens")
    return {row.item: (row.detail["prompt"], row.detail["answer"]) for row in rows if "answer" in row.detail}
