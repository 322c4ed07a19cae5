"""From ledger rows to the numbers a gate judges."""

from workbench.drift.ledger import Ledger
from workbench.drift.metrics import Series, accuracy_change, bits_tax, kl_per_token, series, tax
from workbench.drift.singles import Sides, auc_change
from workbench.drift.uncertainty import Estimate
from workbench.errors import ConfigError
from workbench.rounds.gate import Measured
from workbench.rounds.plan import measuring_condition, replaced
from workbench.tasks import Plan, suite_label


def measured(plan: Plan, child: str, ledger: Ledger) -> Measured:
    """What the gate asks for, None where the ledger has nothing.

    The retention of versions whose preference was replaced is not judged.
    """
    found = _Reader(ledger, measuring_condition(plan))
    earlier = [v.digest for v in plan.history if v.digest != plan.version.digest]
    suites = {m.suite: m.metric for m in ledger.suites(child) if m.metric in {"correct", "bits"}}
    labels = [suite_label(name) for name in plan.evaluation.suites]
    asked = {label: next((s for s in suites if s == label or s.startswith(f"{label}/")), label) for label in labels}
    taxes = {name: found.tax(suite, plan.base.digest, child) for name, suite in asked.items() if name != "refusal"}
    return Measured(
        finite_weights=True,  # `optimise` refuses to save any other
        gain=found.change(plan, plan.version.digest, child),
        retention_change={v: found.change(plan, v, child) for v in earlier},
        tax=taxes,
        kl_parent=found.kl(plan.version.digest, child, plan.parent.digest),
        kl_base=found.kl(plan.version.digest, child, plan.base.digest),
        superseded=replaced(plan).intersection(earlier),
    )


def require_budget(plan: Plan, ledger: Ledger) -> None:
    """Refuse a round on fresh answers that would begin beyond what all rounds of its lineage may move from the base.

    How far its parent has moved is what the parent's own round measured; where nobody measured it, nothing is refused.

    Raises:
        ConfigError: nothing is left of the budget.
    """
    budget, taught = plan.online.kl_base_budget, next((p.version for p in plan.lineage[-1:]), None)
    if not budget or not plan.online.on or plan.start == plan.base or taught is None:
        return
    moved = _Reader(ledger, measuring_condition(plan)).kl(taught.digest, plan.parent.digest, plan.base.digest)
    if moved and moved.value is not None and moved.value >= budget:
        raise ConfigError(
            f"online.kl_base_budget = {budget:g}: policy {plan.parent.digest[:12]} is {moved.value:.3f} nats per token from the base, so that "
            "nothing is left of it; start from an earlier policy (parent) or from the base (start = 'base'), or raise it"
        )


class _Reader:
    def __init__(self, ledger: Ledger, condition: str) -> None:
        self._ledger, self._condition = ledger, condition

    def change(self, plan: Plan, version: str, child: str) -> Estimate | None:
        """Of accuracy on a version's test pairs; of one without any, of how well its single answers are told apart."""
        before, after = (self._series(p, f"retention/{version}", "margin") for p in (plan.parent.digest, child))
        if before.items and after.items:
            return accuracy_change(after, before)
        suite = f"singles/{version}"
        found = [
            Sides(*(self._series(p, suite, metric) for metric in ("logp_good", "logp_bad")))
            for p in (child, plan.parent.digest, plan.base.digest)
        ]
        return auc_change(*found) if all(each.items for sides in found for each in sides) else None

    def tax(self, suite: str, base: str, child: str) -> Estimate | None:
        for metric, compute in (("correct", tax), ("bits", bits_tax)):
            before, after = (self._series(p, suite, metric) for p in (base, child))
            if before.items and after.items:
                return compute(before, after)
        return None

    def kl(self, version: str, child: str, other: str) -> Estimate | None:
        nats, tokens = (self._series(child, f"samples/{version}", m) for m in (f"kl/{other}", "tokens"))
        return kl_per_token(nats, tokens) if nats.items else None

    def _series(self, policy: str, suite: str, metric: str) -> Series:
        return series(self._ledger.items(policy, suite, metric, self._condition))
