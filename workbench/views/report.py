"""A lineage's drift report, put together from the registry and the ledger; nothing is loaded or written."""

from collections.abc import Sequence

from workbench.drift.ledger import Ledger
from workbench.policies.registry import PolicyRecord, Registry
from workbench.views.answers import answers, examples, refusals
from workbench.views.costs import divergences, taxes
from workbench.views.preferences import averages, cells, changes, matrix_of
from workbench.views.reading import Reader, choose_condition
from workbench.views.records import DriftReport, NamedVersion, PolicyView, VersionView
from workbench.views.singles import singles


def drift_report(
    registry: Registry,
    ledger: Ledger,
    versions: Sequence[NamedVersion],
    policy: str = "champion",
    *,
    condition: str | None = None,
) -> DriftReport:
    """What the rounds that led to a policy gained, lost and moved.

    Args:
        registry: what policies there are.
        ledger: what was measured of them.
        versions: all there are, oldest first; those the lineage was not trained on yet come last in the report.
        policy: as `registry.resolve` takes it; the child of a rejected round is one, too.
        condition: ledger key of how the numbers were measured; what the newest policies share where None.

    Raises:
        PolicyError: nothing or several policies answer to the name.
    """
    lineage = registry.lineage(registry.resolve(policy).digest)
    champion = registry.resolve("champion").digest
    policies = tuple(policy_view(record, t, champion) for t, record in enumerate(lineage))
    columns = columns_of(policies, versions)
    chosen = condition or choose_condition(ledger, [p.digest for p in policies])
    read = Reader(ledger, chosen)
    matrix = matrix_of(read, policies, columns)
    return DriftReport(
        policies=policies,
        versions=columns,
        condition=chosen,
        cells=cells(read, matrix, policies, columns),
        changes=changes(matrix, policies, columns),
        averages=averages(matrix),
        taxes=taxes(read, policies),
        divergences=divergences(read, policies, columns),
        answers=answers(read, policies, columns),
        refusals=refusals(read, policies),
        examples=examples(read, policies, columns),
        singles=singles(read, policies),
    )


def policy_view(record: PolicyRecord, after: int, champion: str) -> PolicyView:
    """A policy as views have it, `after` rounds from its base."""
    return PolicyView(
        name=record.name,
        digest=record.digest,
        round=after,
        made_by=record.round,
        version=record.version or "",
        anchors=dict(record.facts.get("anchors", {})),
        update=record.facts.get("update", False),
        champion=record.digest == champion,
        online=record.facts.get("online", ""),
    )


def columns_of(policies: Sequence[PolicyView], versions: Sequence[NamedVersion]) -> tuple[VersionView, ...]:
    """One version per round, then those not trained on yet. An adopted policy's may be unknown."""
    names: dict[str, str] = {}
    for version in versions:
        names.setdefault(version.digest, version.name)
    trained = [VersionView(names.get(p.version, p.version[:12] or "unknown"), p.version, p.round) for p in policies[1:]]
    known = {one.digest for one in trained}
    return (*trained, *(VersionView(name, digest, None) for digest, name in names.items() if digest not in known))
