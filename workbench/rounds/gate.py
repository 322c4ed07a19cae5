"""The thresholds a child must pass to be promoted.

Each kind of number has the rule that suits what is known about it, so that a round which harmed nothing is seldom
refused and a loss is refused as often as n allows:

- **gain** on the new version: the lower 95 % bound must lie above `min_gain`. The round has to show that it learned.
- **loss** (retention of every earlier version against the parent, tax of every suite against the base): refused when
  the estimate is beyond the threshold *and* its lower bound above zero. The estimate alone would refuse harmless
  rounds (90 pairs with 20 % flips: 14 % of them per version at 5 points); the bound alone would refuse losses that are
  certain but allowed; asking for proof that the loss is below the threshold would refuse nearly every round at such
  an n. The bound holds for all losses together (Bonferroni), so that a round without any is refused at most 5 % of
  the time, however many versions and suites there are.
- **KL** budgets: the upper 95 % bound must lie within. Without drift KL is 0, so that this costs no false alarm.

A number that is missing or not finite fails. A loss that passes says from which size on it would be found four times
in five; where n and not the threshold sets that size, it says that smaller ones cannot be seen.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, NamedTuple

from workbench.config import GateSettings
from workbench.drift.power import POWER
from workbench.drift.uncertainty import Estimate, Z, format_estimate

FALSE_ALARMS = 0.05
"""Share of rounds without any loss that the loss criteria together may refuse."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a gate judges. Name everything the plan asks for, with None for what could not be measured.

    Attributes:
        finite_weights: every weight of the child is finite; None where nobody looked.
        gain: accuracy of child minus parent on the new version's test pairs (`metrics.accuracy_change`); of a version without
            any, how much better its single answers are told apart (`singles.auc_change`).
        retention_change: the same on each earlier version, by version; negative means forgotten.
        tax: base minus child per capability suite, as a share (`metrics.tax`, `bits_tax`); positive means lost.
        kl_parent: child to parent on the child's samples, nats per token (`metrics.kl_per_token`).
        kl_base: child to base, the same.
        superseded: earlier versions that this round replaces; losing them is expected and not judged.
    """

    finite_weights: bool | None
    gain: Estimate | None
    retention_change: Mapping[str, Estimate | None]
    tax: Mapping[str, Estimate | None]
    kl_parent: Estimate | None
    kl_base: Estimate | None
    superseded: frozenset[str] = field(default_factory=frozenset[str])


class Criterion(NamedTuple):
    """One threshold and what came of it.

    Attributes:
        name: such as `gain`, `retention/<version>`, `tax/<suite>`, `kl/base`.
        threshold: the setting; None for weights, and where nothing is judged.
        value: what was measured; for retention the drop, so that positive means lost. None where missing.
        rule: what passing means.
        passed: whether it was reached.
        reason: why, in words with the numbers.
        smallest_visible: smallest loss found with 80 % power at this n; None for other kinds.
    """

    name: str
    threshold: float | None
    value: Estimate | None
    rule: str
    passed: bool
    reason: str
    smallest_visible: float | None = None


class Verdict(NamedTuple):
    """Whether a child may be promoted, and every criterion behind it."""

    passed: bool
    criteria: tuple[Criterion, ...]

    @property
    def failures(self) -> tuple[Criterion, ...]:
        """The criteria that were not reached."""
        return tuple(one for one in self.criteria if not one.passed)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Verdict":
        """The inverse of `as_json`."""
        rows: list[dict[str, Any]] = [
            {**row, "value": Estimate(**row["value"]) if row["value"] else None} for row in kept["criteria"]
        ]
        return cls(kept["passed"], tuple(Criterion(**row) for row in rows))

    def as_json(self) -> dict[str, object]:
        """Plain values for a JSON file; numbers that are not finite become None."""
        return {"passed": self.passed, "criteria": [_plain(one) for one in self.criteria]}

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Name, measured value, threshold, `pass` or `FAIL`, and reason of each criterion, for a table."""
        return [
            (
                one.name,
                "-" if one.value is None else format_estimate(one.value, digits=3),
                "-" if one.threshold is None else f"{one.threshold:g}",
                "pass" if one.passed else "FAIL",
                one.reason,
            )
            for one in self.criteria
        ]


def judge(settings: GateSettings, measured: Measured) -> Verdict:
    """The verdict on a child. Pure: the same numbers give the same verdict."""
    retention = {version: one.scaled(-1) if one else None for version, one in measured.retention_change.items()}
    judged = {f"retention/{v}": (one, settings.max_retention_drop) for v, one in retention.items()
              if v not in measured.superseded}  # fmt: skip
    judged |= {f"tax/{suite}": (one, settings.max_tax) for suite, one in measured.tax.items()}
    criteria = [
        _weights(finite=measured.finite_weights),
        _gain(measured.gain, settings.min_gain),
        *(_loss(name, one, threshold, family=len(judged)) for name, (one, threshold) in judged.items()),
        *(_superseded(v, one) for v, one in retention.items() if v in measured.superseded),
        _kl("kl/parent", measured.kl_parent, settings.max_kl_parent),
        _kl("kl/base", measured.kl_base, settings.max_kl_base),
    ]
    return Verdict(all(one.passed for one in criteria), tuple(criteria))


def _weights(*, finite: bool | None) -> Criterion:
    reason = {True: "every weight is finite", False: "a weight is NaN or infinite", None: "nobody looked"}[finite]
    return Criterion("finite weights", None, None, "every weight finite", passed=finite is True, reason=reason)


def _gain(value: Estimate | None, threshold: float) -> Criterion:
    rule = "lower 95 % bound above threshold"
    known = _known(value)
    if known is None:
        return _missing("gain", value, threshold, rule)
    estimate, low, _ = known
    if low > threshold:
        reason = f"gained {estimate:.3f}, at least {low:.3f}"
    elif estimate > threshold:
        reason = f"a gain of {estimate:.3f} is not certain: it may be {low:.3f}; more test pairs would tell"
    else:
        reason = f"no gain seen: {estimate:.3f}"
    return Criterion("gain", threshold, value, rule, passed=low > threshold, reason=reason)


def _loss(name: str, value: Estimate | None, threshold: float, *, family: int) -> Criterion:
    """Refused where the loss is beyond the threshold and surely above zero, for all `family` losses together."""
    rule = f"loss within threshold, or not certain (lower bound at {FALSE_ALARMS:.0%} over {family} losses)"
    known = _known(value)
    if known is None:
        return _missing(name, value, threshold, rule)
    estimate, low, _ = known
    quantile = NormalDist().inv_cdf(1 - FALSE_ALARMS / family)
    error = (estimate - low) / Z
    bound = quantile * error
    visible = max(threshold, bound) + NormalDist().inv_cdf(POWER) * error
    passed = estimate <= threshold or estimate <= bound
    if not passed:
        reason = f"lost {estimate:.3f}, at least {estimate - bound:.3f}"
    else:
        reason = f"{estimate:.3f} is within {threshold:g}" if estimate <= threshold else f"{estimate:.3f} may be chance"
        sight = "cannot see" if bound > threshold else "may miss"
        reason += f"; n={value.n if value else 0} {sight} a loss below {visible:.3f}"
    return Criterion(name, threshold, value, rule, passed=passed, reason=reason, smallest_visible=visible)


def _superseded(version: str, value: Estimate | None) -> Criterion:
    reason = "replaced by this round: losing it is expected"
    return Criterion(f"retention/{version}", None, value, "not judged", passed=True, reason=reason)


def _kl(name: str, value: Estimate | None, budget: float) -> Criterion:
    rule = "upper 95 % bound within budget (nats per token)"
    known = _known(value)
    if known is None:
        return _missing(name, value, budget, rule)
    estimate, _, high = known
    passed = high <= budget
    reason = f"{estimate:.3f}, at most {high:.3f}" + ("" if passed else f": beyond {budget:g}")
    return Criterion(name, budget, value, rule, passed=passed, reason=reason)


def _missing(name: str, value: Estimate | None, threshold: float, rule: str) -> Criterion:
    why = "not measured" if value is None else f"no number: {value.method} (n={value.n})"
    return Criterion(name, threshold, value, rule, passed=False, reason=why)


def _known(value: Estimate | None) -> tuple[float, float, float] | None:
    """Value, low and high, where all are there and finite."""
    if value is None or value.value is None or value.low is None or value.high is None:
        return None
    numbers = (value.value, value.low, value.high)
    return numbers if all(math.isfinite(number) for number in numbers) else None


def _plain(criterion: Criterion) -> dict[str, object]:
    plain: dict[str, object] = criterion._asdict()
    if criterion.value is not None:
        plain["value"] = {key: _finite(one) for key, one in criterion.value._asdict().items()}
    return plain


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
