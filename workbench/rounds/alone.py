"""Measuring one policy outside a round, under the conditions a round would measure it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from workbench.drift.ledger import Ledger
from workbench.drift.metrics import Series, accuracy, bits_per_byte, kl_per_token, series
from workbench.drift.uncertainty import Estimate, mean, share
from workbench.items import read_items
from workbench.rounds.plan import measuring_condition
from workbench.rounds.run import Services, has, knows
from workbench.tasks import EvaluateJob, Plan, PolicyRef, ScoreJob, Tools, VersionRef, reporting

ONLY_PARTS = frozenset({"bytes"})
"""Metrics that are a part of another and mean nothing alone."""


class Alone:
    """The parent of a plan, measured as a round of that plan would.

    Args:
        plan: says how, and which suites.
        tools: the heavy verbs.
        services: where results are kept.
        policy: another than the parent.
    """

    def __init__(self, plan: Plan, tools: Tools, services: Services, *, policy: PolicyRef | None = None) -> None:
        self._plan, self._tools, self._services = plan, tools, services
        self._policy = policy or plan.parent

    def measure(self, versions: Sequence[VersionRef], against: Mapping[str, PolicyRef]) -> None:
        """Measure what is not measured yet, and add it to the ledger.

        Args:
            versions: what retention and samples are measured on.
            against: earlier policies to measure KL to, by digest.
        """
        plan, services = self._plan, self._services
        policy, condition = self._policy, measuring_condition(plan)
        known = {m.suite for m in services.ledger.suites(policy.digest) if m.numerics == condition}
        missing = tuple(v for v in versions if not knows(known, v))
        suites = tuple(s for s in plan.evaluation.suites if not has(known, s))
        if not missing and not suites:
            return
        staged = services.objects.stage()
        try:
            job = EvaluateJob(
                policy=policy,
                versions=missing,
                tables={v.digest: self._score(v, staged / v.digest) for v in missing},
                suites=suites,
                against={d: p for d, p in against.items() if d != policy.digest},
                settings=plan.evaluation,
                numerics=plan.numerics,
                max_length=plan.training.max_length,
                output=str(_made(staged / "items")),
            )
            self._tools.evaluate(job, reporting(self._services.watch))
            services.ledger.record(policy.digest, condition, read_items(staged / "items"))
        finally:
            services.objects.discard(staged)

    def _score(self, version: VersionRef, output: Path) -> str:
        plan = self._plan
        job = ScoreJob(
            policy=self._policy,
            version=version,
            splits=("test",),
            numerics=plan.numerics,
            max_length=plan.training.max_length,
            batch_size=plan.evaluation.batch_size,
            cache=self._services.cache,
            output=str(_made(output)),
        )
        self._tools.score(job, reporting(self._services.watch))
        return job.output


def measurements(ledger: Ledger, policy: str, condition: str) -> dict[str, dict[str, Estimate]]:
    """Everything measured of a policy under one condition, by suite and metric."""
    found: dict[str, dict[str, Estimate]] = {}
    for one in ledger.suites(policy):
        if one.numerics == condition and one.metric not in ONLY_PARTS:
            read = _Rows(ledger, (policy, one.suite, condition))
            found.setdefault(one.suite, {})[one.metric] = read.estimate(one.metric)
    return found


class _Rows:
    """The rows of one suite."""

    def __init__(self, ledger: Ledger, key: tuple[str, str, str]) -> None:
        self._ledger, self._key = ledger, key

    def series(self, metric: str) -> Series:
        """One metric, item by item."""
        policy, suite, condition = self._key
        return series(self._ledger.items(policy, suite, metric, condition))

    def estimate(self, metric: str) -> Estimate:
        """The number a metric is usually read as: accuracy of margins, quotients of sums, shares, means."""
        rows = self.series(metric)
        if metric == "margin":
            return accuracy(rows)
        if metric == "bits":
            return bits_per_byte(rows, self.series("bytes"))
        if metric.startswith(("kl/", "kl_back/")):
            return kl_per_token(rows, self.series("tokens"))
        between = bool(np.all((rows.values >= 0) & (rows.values <= 1)))
        return (share if between else mean)(rows.values, rows.groups)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
