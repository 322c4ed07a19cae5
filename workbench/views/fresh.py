"""What a round on its own fresh answers earned, and how far it moved for it."""

import json
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from workbench.drift.metrics import kl_per_token
from workbench.drift.uncertainty import Estimate, format_estimate
from workbench.places import Places
from workbench.rounds.journal import RoundRecord
from workbench.rounds.plan import condition_of
from workbench.views.reading import Reader, compare
from workbench.views.watched import curve_of

FEW = 10
"""Steps at the start and at the end that are averaged, of those told of."""


class Fresh(NamedTuple):
    """A round on fresh answers. What training said is averaged over the first or the last steps, and None where it said nothing.

    Attributes:
        objective: such as `grpo`.
        reward_before, reward: mean of an answer, in the first steps and in the last.
        tokens: of an answer, in the last steps.
        truncated: share of answers cut at `online.max_new_tokens`, in the last steps.
        kl: nats per token from the child to each anchor, by digest, on its answers to held-out prompts of its version.
    """

    objective: str
    reward_before: float | None
    reward: float | None
    tokens: float | None
    truncated: float | None
    kl: Mapping[str, Estimate]


def objective_of(record: RoundRecord) -> str:
    """By what a round learned from its own fresh answers; empty where it learned from pairs."""
    return json.loads(record.plan).get("online", {}).get("objective", "")


def fresh_of(places: Places, record: RoundRecord) -> Fresh | None:
    """What there is to tell of a round on fresh answers; None of one on pairs."""
    objective, plan = objective_of(record), json.loads(record.plan)
    if not objective:
        return None
    steps = [facts for _, facts in curve_of(places.journal.events(record.digest))]
    few = min(FEW, max(1, len(steps) // 2))
    first, last = steps[:few], steps[-few:]
    return Fresh(
        objective=objective,
        reward_before=_mean(first, "reward"),
        reward=_mean(last, "reward"),
        tokens=_mean(last, "answer_tokens"),
        truncated=_mean(last, "truncated"),
        kl=_kl(places, record.child, plan) if record.child else {},
    )


def said_of(fresh: Fresh, names: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The same as rows of words; policies by what people call them."""
    rows = [
        ("objective", fresh.objective),
        ("mean reward of its answers, first steps", _number(fresh.reward_before, "{:.3f}")),
        ("mean reward of its answers, last steps", _number(fresh.reward, "{:.3f}")),
        *((f"KL to {names.get(other, other[:12])}, nats per token", _estimated(kl)) for other, kl in fresh.kl.items()),
        ("tokens an answer", _number(fresh.tokens, "{:.1f}")),
        ("share of answers cut off", _number(fresh.truncated, "{:.0%}")),
    ]
    return tuple((name, told) for name, told in rows if told)


def _mean(steps: Sequence[Mapping[str, float]], name: str) -> float | None:
    found = [facts[name] for facts in steps if name in facts]
    return fmean(found) if found else None


def _kl(places: Places, child: str, plan: Mapping[str, Any]) -> dict[str, Estimate]:
    read, suite = Reader(places.ledger, condition_of(plan)), f"samples/{plan['version']}"
    tokens = read.series(child, suite, "tokens")
    return {
        each["policy"]: compare(kl_per_token, read.series(child, suite, f"kl/{each['policy']}"), tokens)
        for each in plan["anchors"]
    }


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _estimated(kl: Estimate) -> str:
    return format_estimate(kl, digits=3) if kl.value is not None or kl.n else "not measured"
