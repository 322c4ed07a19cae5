"""Policies on the straight line from a parent to its child, measured: what a smaller step would have kept and cost.

They are whole weights mixed (linear mode connectivity, arXiv 1912.05671; averaging against the alignment tax, arXiv
2309.06256). Only their numbers stay, under the digests of `workbench.policies.lineage.points_between`.
"""

import json
from collections.abc import Sequence

from workbench import assembly
from workbench.assembly import Where
from workbench.config import RoundSettings
from workbench.drift.uncertainty import Estimate
from workbench.errors import ConfigError
from workbench.places import Watch, silent
from workbench.policies.lineage import points_between
from workbench.policies.records import PolicyRecord
from workbench.rebasing import settings_of
from workbench.rounds.alone import Alone, measurements
from workbench.rounds.plan import condition_of, measuring_condition
from workbench.rounds.planning import version_ref
from workbench.rounds.run import has
from workbench.tasks import MergeJob, Tools, reporting
from workbench.views.kept import Numbers
from workbench.workspace import SELF, Workspace


def measure_between(
    ws: Workspace,
    policy: str,
    shares: Sequence[float],
    *,
    where: Where = "auto",
    watch: Watch = silent,
) -> dict[float, dict[str, dict[str, Estimate]]]:
    """Measure mixtures of a policy with its parent, as the round that made it was measured, where they are not yet.

    Args:
        ws: the workspace.
        policy: as `registry.resolve` takes it.
        shares: of the child, in whole twentieths.
        where: in this process or on Ray.
        watch: told every progress.

    Returns:
        Numbers with their intervals, by share, suite and metric.

    Raises:
        ConfigError: a share lies outside, or no round of this workspace made the policy.
    """
    child = ws.registry.resolve(policy)
    made = next((r for r in ws.journal.rounds() if r.digest == child.round), None)
    if child.parent is None or made is None:
        raise ConfigError(f"{child.name}: no round of this workspace made it, so that nothing says how to measure what lies "
                          "between it and its parent; choose a policy of a round; `workbench policies` lists them")  # fmt: skip
    known = points_between(child.parent, child.digest)
    if wrong := [share for share in shares if share not in known]:
        raise ConfigError(f"share {wrong[0]:g}: expected whole twentieths between 0 and 1, such as 0.25, 0.5 or 0.75")
    with assembly.tools(where) as tools:
        for share in shares:
            _measure(ws, child, (share, known[share]), (settings_of(made.plan), tools, watch))
    condition = condition_of(json.loads(made.plan))
    return {share: measurements(ws.ledger, known[share], condition) for share in shares}


def _measure(
    ws: Workspace, child: PolicyRecord, point: tuple[float, str], how: tuple[RoundSettings, Tools, Watch]
) -> None:
    (share, name), (settings, tools, watch) = point, how
    lineage = ws.registry.lineage(child.digest)
    plan = ws.plan(settings.model_copy(update={"parent": child.digest, "version": "latest", "anchors": SELF}))
    versions = dict.fromkeys(p.version for p in lineage if p.version)
    there = {m.suite for m in ws.ledger.suites(name) if m.numerics == measuring_condition(plan)}
    if all(there & {f"retention/{v}", f"singles/{v}"} for v in versions) and all(
        has(there, suite) for suite in plan.evaluation.suites
    ):
        return
    own, start = ws.registry.ref(child), ws.registry.ref(lineage[-2])
    staged = ws.objects.stage()
    try:
        (staged / "mixed").mkdir()
        job = MergeJob(own, str(staged / "mixed"), plan.numerics, None, start, share)
        tools.merge(job, reporting(watch))
        mixed = own._replace(digest=name, kind="full", path=job.output)
        alone = Alone(plan, tools, ws.services(watch), policy=mixed)
        alone.measure([version_ref(v, ws.versions.directory) for v in versions], {})
    finally:
        ws.objects.discard(staged)
    Numbers(ws.engine, measuring_condition(plan)).keep([lineage[0].digest, name])
