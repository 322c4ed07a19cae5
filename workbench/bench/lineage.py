"""A lineage of rounds in a bench: what it cost, and what its policies can do, read from the ledger."""

import resource
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from preference_data.versions import load_version
from workbench.config import RoundSettings
from workbench.drift.metrics import Series, by_quartile, distinct_2, hits, kl_per_token, series
from workbench.models.score_table import read_table
from workbench.rounds.plan import measuring_condition
from workbench.rounds.run import Outcome
from workbench.tasks import EPOCHS, Item
from workbench.workspace import Workspace

DIGITS = 4
MEMORY_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes of what the operating system counts a process's memory in."""


@dataclass
class Lineage:
    """The base and the children so far, and what each round cost.

    Attributes:
        policies: digests, base first.
        rounds: by round, seconds and counts.
    """

    policies: list[str]
    rounds: list[dict[str, float | None]]


def cost(ws: Workspace, outcome: Outcome, seconds: float | None, *, epochs: int) -> dict[str, float | None]:
    """What a round took: seconds, answers scored, pairs of an epoch, size of the child, memory so far.

    Answers count once for every policy that scored them before training, whether the scores were known already or not: the
    same round costs the same, whichever lineage ran it first. Seconds are None for a round that was begun before, or is
    another lineage's, too.
    """
    return {
        "seconds": None if seconds is None else round(seconds, 1),
        "scored": _scored(ws, outcome),
        "pairs": _trained_on(ws, outcome, epochs),
        "disk_bytes": sum(f.stat().st_size for f in Path(outcome.child.path).glob("*") if f.is_file()),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MEMORY_UNIT,
    }


def _scored(ws: Workspace, outcome: Outcome) -> int:
    # What is scored on test pairs measures, and is the same for all methods.
    steps = (s for s in ws.journal.status(outcome.round).steps if s.name.startswith(("score train ", "score select ")))
    return sum(2 * len(read_table(ws.objects.path(str(step.output)))) for step in steps)


def _trained_on(ws: Workspace, outcome: Outcome, epochs: int) -> int:
    for step in ws.journal.status(outcome.round).steps:
        if step.name == "mix":
            (folder,) = (each for each in ws.objects.path(str(step.output)).iterdir() if each.is_dir())
            each = [len(pair.slices.get(EPOCHS, "").split()) or epochs for pair in load_version(folder).pairs("train")]
            return sum(each) // epochs
    return ws.version(str(outcome.child.version)).counts["train"]


def read_out(ws: Workspace, lineage: Lineage, versions: Sequence[str], settings: RoundSettings) -> dict[str, Any]:
    """Everything measured of a lineage, as plain values, by task and policy (base first) where not said otherwise.

    Returns:
        `hits`: mean score of each test prompt; `chance`: mean sigma(margin); `lost_by_quartile`: by task before the last,
        share of pairs right after its round and wrong at the end, by quartiles of the margin then; `kl_base`, `kl_parent`: nats per token on
        the policy's samples; `tokens`, `distinct_2`: of its samples; `compliance`: by guideline, score of each sample;
        `choice`: items right, and `text_bits`: bits of the text suite, of the base and the last policy; `rounds`: costs.
    """
    reader = _Reader(ws, measuring_condition(ws.plan(settings)))
    digests, policies = [ws.version(name).digest for name in versions], lineage.policies
    parents = [policies[0], *policies]

    def table(of: Any) -> list[list[Any]]:
        return [[of(policy, version) for policy in policies] for version in digests]

    return {
        "hits": table(reader.prompts),
        "chance": table(reader.chance),
        "lost_by_quartile": [reader.lost(policies[i], policies[-1], v) for i, v in enumerate(digests[:-1], 1)],
        "kl_base": table(lambda p, v: reader.kl(p, v, policies[0])),
        "kl_parent": table(lambda p, v: reader.kl(p, v, parents[policies.index(p)])),
        "tokens": table(lambda p, v: _mean(reader.values(p, f"samples/{v}", "tokens"))),
        "distinct_2": table(reader.distinct),
        "compliance": {
            g: table(lambda p, v, g=g: reader.values(p, f"samples/{v}", f"compliance/{g}"))
            for g in settings.evaluation.guidelines
        },
        "choice": [reader.right(p) for p in (policies[0], policies[-1])],
        "text_bits": [
            round(sum(reader.values(p, reader.text_suite(p), "bits")), 1) for p in (policies[0], policies[-1])
        ],
        "rounds": lineage.rounds,
    }


def accuracy(ws: Workspace, policy: str, versions: Sequence[str], settings: RoundSettings) -> float:
    """Share of prompts a policy has right, mean over versions; it has been measured on them."""
    shares = [_mean(prompt_scores(ws, policy, name, settings)) or 0.0 for name in versions]
    return _short(sum(shares) / len(shares))


def prompt_scores(ws: Workspace, policy: str, version: str, settings: RoundSettings) -> list[float]:
    """By test prompt of a version whether a policy has it right, measured as these settings say."""
    return _Reader(ws, measuring_condition(ws.plan(settings))).prompts(policy, ws.version(version).digest)


class _Reader:
    """Numbers of one workspace, measured under one condition."""

    def __init__(self, ws: Workspace, condition: str) -> None:
        self._ledger, self._condition = ws.ledger, condition

    def values(self, policy: str, suite: str, metric: str) -> list[float]:
        """One number per item, by item id."""
        return [_short(item.value) for item in self._items(policy, suite, metric)]

    def prompts(self, policy: str, version: str) -> list[float]:
        """The mean score of each test prompt: 1 right, 0 wrong; a prompt counts once, however many pairs it has."""
        scores = hits(self._margins(policy, version))
        by_prompt: dict[str, list[float]] = defaultdict(list)
        for prompt, score in zip(scores.groups, scores.values.tolist(), strict=True):
            by_prompt[prompt].append(score)
        return [_short(_mean(by_prompt[prompt]) or 0.0) for prompt in sorted(by_prompt)]

    def chance(self, policy: str, version: str) -> float:
        """Mean chance of the better answer among the two."""
        return _short(float((1 / (1 + np.exp(-self._margins(policy, version).values))).mean()))

    def lost(self, before: str, after: str, version: str) -> list[float | None]:
        """Share of pairs that turned from right to wrong, by quartiles of the margin before."""
        quartiles = by_quartile(self._margins(before, version), self._margins(after, version))
        return [None if one.lost.value is None else _short(one.lost.value) for one in quartiles]

    def kl(self, policy: str, version: str, other: str) -> float | None:
        """Nats per token on the policy's samples; None for itself."""
        nats, tokens = (series(self._items(policy, f"samples/{version}", m)) for m in (f"kl/{other}", "tokens"))
        found = kl_per_token(nats, tokens).value if nats.items else None
        return None if found is None else _short(found)

    def distinct(self, policy: str, version: str) -> float | None:
        """Distinct word pairs of the samples."""
        texts = [str(item.detail.get("answer", "")) for item in self._items(policy, f"samples/{version}", "tokens")]
        found = distinct_2(texts).value
        return None if found is None else _short(found)

    def right(self, policy: str) -> list[float]:
        """Items right, of all suites of questions."""
        asked = {m.suite for m in self._ledger.suites(policy) if (m.metric, m.numerics) == ("correct", self._condition)}
        return [value for suite in sorted(asked) for value in self.values(policy, suite, "correct")]

    def text_suite(self, policy: str) -> str:
        """The text suite, whose name carries a hash of its text."""
        return next((m.suite for m in self._ledger.suites(policy) if m.suite.startswith("text/")), "text")

    def _margins(self, policy: str, version: str) -> Series:
        return series(self._items(policy, f"retention/{version}", "margin"))

    def _items(self, policy: str, suite: str, metric: str) -> list[Item]:
        return self._ledger.items(policy, suite, metric, self._condition)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _short(value: float) -> float | int:
    """Few digits, and none where there is nothing behind the point: results are files to be kept."""
    return int(value) if value == int(value) else round(value, DIGITS)
