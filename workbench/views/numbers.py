"""Every number of one policy, on all items and on those of each slice, from what was measured of it, its parent and base.

| name | of | meaning |
|---|---|---|
| `accuracy`, `above base`, `margin`, `margin per token`, `chosen change` | retention | as in `records.Cell` |
| `from parent`, `from base` | retention | accuracy after minus before, on the same pairs |
| `lost`, `gained` | retention | share of pairs right before and wrong now, and the other way round, against the parent |
| `overconfident` | retention | mean of sigma(abs(d)) - (d > 0), half at d = 0, d the margin over the base's: positive, surer than right |
| `margin quartile 1` to `4` | retention | change from the parent, of the quarters of its margins, the lowest first |
| `lost quartile 1` to `4` | retention | `lost` of each of these quarters alone |
| `told apart` | singles | share of couples of a good and a bad answer whose good one gained more over the base (AUC) |
| `told apart from parent` | singles | that after minus before, on the same answers |
| `level`, `tax`, `step tax` | capability | as in `records.Tax` |
| `kl/<digest>`, `kl_back/<digest>` | samples | to another policy and from it, on the answers of the one, nats per token |
| `length`, `length change`, `distinct-2`, `finished`, `refused`, `compliance/<guideline>` | samples | of answers |
| `refused safe`, `refused unsafe` | refusal | share of probes |
| `refused safe from parent`, `refused unsafe from parent` | refusal | share after minus before, on the same probes |
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from workbench.drift.metrics import (
    QUARTILES,
    Series,
    accuracy,
    accuracy_change,
    accuracy_relative,
    bits_per_byte,
    bits_tax,
    by_quartile,
    change,
    distinct_2,
    hits,
    kl_per_token,
    length,
    mean_margin,
    series,
    step_tax,
    tax,
)
from workbench.drift.singles import Sides, auc, auc_change
from workbench.drift.uncertainty import FEWEST_GROUPS, Estimate, mean, share
from workbench.tasks import Item
from workbench.views.reading import Reader, compare
from workbench.views.records import NOT_MEASURED

COMPLIANCE, KL = "compliance/", ("kl/", "kl_back/")
TOLD_APART, CHANGE = "told apart", "told apart from parent"
OF_QUARTER = {f"{kind} quartile {k}": k for kind in ("margin", "lost") for k in range(1, QUARTILES + 1)}
"""Numbers of a quarter of the pairs by the margin before, and of which, the lowest the first."""
MOST_SLICES = 20
"""A slice with more values than this, such as an id, is none that is looked at."""
KIN = ("base", "parent", "own")
ALONE = ("accuracy", "margin", "margin per token", "level", "length", "distinct-2", "finished")
"""Numbers of one policy, beside shares refused, KL and compliance."""


class Number(NamedTuple):
    """One number of a policy.

    Attributes:
        slice: empty for all items, else such as `language=de`.
    """

    slice: str
    name: str
    suite: str
    value: Estimate


class Kin(NamedTuple):
    """A policy with what it is compared to, by digest; of a base all three are the same."""

    base: str
    parent: str
    own: str

    @property
    def is_base(self) -> bool:
        """Whether there is nothing to compare it to."""
        return self.own == self.base


def numbers_of(read: Reader, kin: Kin) -> Iterator[Number]:
    """Every number of a policy, suite by suite."""
    found: dict[str, list[str]] = {}
    for one in read.measured(kin.own):
        found.setdefault(one.suite, []).append(one.metric)
    for suite, metrics in found.items():
        make = _maker(suite, metrics)
        if make is None:
            continue
        yield from (Number("", name, suite, value) for name, value in make(read, kin, suite, metrics))
        for each in _slices(read.items(kin.own, suite, _MAIN.get(make, metrics[0]))):
            part = read.within(each)
            yield from (Number(each, name, suite, value) for name, value in make(part, kin, suite, metrics))


def numbers_of_suite(read: Reader, kin: Kin, suite: str) -> dict[str, Estimate]:
    """Numbers of one suite by name, of the items that are read; none where it was not measured."""
    metrics = [one.metric for one in read.measured(kin.own) if one.suite == suite]
    make = _maker(suite, metrics)
    return dict(make(read, kin, suite, metrics)) if make else {}


def is_comparison(name: str) -> bool:
    """Whether a number is of two policies and moves with what is compared; others are of one, or name the other."""
    if name.startswith("refused"):
        return name.endswith(" from parent")
    return name not in ALONE and not name.startswith((*KL, COMPLIANCE))


Named = Iterator[tuple[str, Estimate]]
Make = Callable[[Reader, Kin, str, Sequence[str]], Named]


def _retention(read: Reader, kin: Kin, suite: str, _: Sequence[str]) -> Named:
    base, parent, own = (read.series(policy, suite, "margin") for policy in kin)
    if own is None:
        return
    yield "accuracy", accuracy(own)
    yield "margin", mean_margin(own)
    per_token = read.series(kin.own, suite, "margin_per_token")
    if per_token is not None:
        yield "margin per token", mean_margin(per_token)
    if kin.is_base:
        return
    yield "above base", compare(accuracy_relative, own, base)
    yield "chosen change", compare(change, *(read.series(p, suite, "logp_chosen") for p in (kin.own, kin.base)))
    yield from numbers_turned(parent, own)
    yield "from base", compare(accuracy_change, own, base)
    if base is not None and base.items == own.items:
        moved = own.values - base.values
        sure = 1 / (1 + np.exp(-np.abs(moved)))
        yield "overconfident", mean(sure - (np.sign(moved) + 1) / 2, own.groups)


def numbers_turned(before: Series | None, now: Series) -> Named:
    """What turned between two policies on the pairs of one version, from their margins."""
    yield "from parent", compare(accuracy_change, now, before)
    if before is None or before.items != now.items:
        return
    yield "lost", share((hits(before).values > hits(now).values).astype(float), now.groups)
    yield "gained", share((hits(before).values < hits(now).values).astype(float), now.groups)
    for k, quarter in enumerate(by_quartile(before, now), start=1):
        yield f"margin quartile {k}", quarter.change
        yield f"lost quartile {k}", quarter.lost


def _singles(read: Reader, kin: Kin, suite: str, _: Sequence[str]) -> Named:
    base, parent, own = (_sides(read, policy, suite) for policy in kin)
    if own is None or base is None or kin.is_base:
        return
    yield TOLD_APART, auc(own, base)
    yield CHANGE, auc_change(own, parent, base) if parent else NOT_MEASURED


def _sides(read: Reader, policy: str, suite: str) -> Sides | None:
    good, bad = (read.series(policy, suite, metric) for metric in ("logp_good", "logp_bad"))
    return Sides(good, bad) if good and bad else None


def _choice(read: Reader, kin: Kin, suite: str, _: Sequence[str]) -> Named:
    base, parent, own = (read.series(policy, suite, "correct") for policy in kin)
    if own is None:
        return
    yield "level", share(own.values, own.groups)
    if not kin.is_base:
        yield "tax", compare(tax, base, own)
        yield "step tax", compare(step_tax, parent, own)


def _text(read: Reader, kin: Kin, suite: str, _: Sequence[str]) -> Named:
    base, parent, own = (read.series(policy, suite, "bits") for policy in kin)
    yield "level", compare(bits_per_byte, own, read.series(kin.own, suite, "bytes"))
    if not kin.is_base:
        yield "tax", compare(bits_tax, base, own)
        yield "step tax", compare(bits_tax, parent, own)


def _samples(read: Reader, kin: Kin, suite: str, metrics: Sequence[str]) -> Named:
    tokens, before = (read.series(policy, suite, "tokens") for policy in (kin.own, kin.base))
    if tokens is None:
        return
    yield "length", length(tokens)
    if not kin.is_base:
        yield "length change", compare(change, tokens, before)
    answers = [row.detail["answer"] for row in read.items(kin.own, suite, "tokens") if "answer" in row.detail]
    yield "distinct-2", distinct_2(answers)
    for metric in metrics:
        found = read.series(kin.own, suite, metric)
        if found is None:
            continue
        if metric.startswith(KL):
            yield metric, kl_per_token(found, tokens)
        elif metric.startswith(COMPLIANCE):
            yield metric, mean(found.values, found.groups)
        elif metric in {"finished", "refused"}:
            yield metric, share(found.values, found.groups)


def _refusal(read: Reader, kin: Kin, suite: str, _: Sequence[str]) -> Named:
    own, parent = (read.items(policy, suite, "refused") for policy in (kin.own, kin.parent))
    for label in sorted({row.slices.get("label", "") for row in own}):
        now, before = (series([row for row in rows if row.slices.get("label", "") == label]) for rows in (own, parent))
        yield f"refused {label}", share(now.values, now.groups)
        if not kin.is_base:
            yield f"refused {label} from parent", tax(now, before)  # a rise: what is now, minus what was before


_KINDS: Mapping[str, Make] = {"retention": _retention, "singles": _singles, "samples": _samples, "refusal": _refusal}


def _maker(suite: str, metrics: Sequence[str]) -> Make | None:
    """What computes the numbers of a suite; None where it has none."""
    make = _KINDS.get(suite.split("/")[0]) or (_text if "bits" in metrics else _choice)
    return None if make is _choice and "correct" not in metrics else make


_MAIN: Mapping[Make, str] = {
    _retention: "margin",
    _singles: "logp_good",
    _choice: "correct",
    _text: "bits",
    _samples: "tokens",
    _refusal: "refused",
}


def _slices(rows: Sequence[Item]) -> Iterator[str]:
    """What part of the items can be looked at alone: `name=value` where there are enough of it, and more than it."""
    counts: Mapping[str, Counter[str]] = {}
    for row in rows:
        for name, value in row.slices.items():
            counts.setdefault(name, Counter())[value] += 1
    for name, values in sorted(counts.items()):
        if len(values) <= MOST_SLICES:
            yield from (f"{name}={value}" for value, n in sorted(values.items()) if FEWEST_GROUPS <= n < len(rows))
