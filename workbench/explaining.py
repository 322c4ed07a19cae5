"""Why a version fell: the training pairs of a round that turned it."""

from workbench import assembly
from workbench.assembly import Where
from workbench.config import BY_BATCH
from workbench.errors import ConfigError
from workbench.places import Watch, silent
from workbench.rebasing import settings_of
from workbench.rounds.plan import plan_digest
from workbench.rounds.planning import version_ref
from workbench.rounds.run import explain_round
from workbench.views.explained import Explained, explained
from workbench.workspace import Workspace


def explain(
    ws: Workspace, policy: str, version: str, *, within: str = "", where: Where = "auto", watch: Watch = silent
) -> Explained:
    """Which training pairs of the round that made a policy turned what a version had taught.

    Args:
        ws: the workspace.
        policy: as `registry.resolve` takes it.
        version: what fell.
        within: slice, such as `language=de`; all pairs where empty.
        where: in this process or on Ray.
        watch: told every progress.

    Raises:
        ConfigError: no round on pairs of this workspace made the policy, its loss is not of single pairs, or too little of
            the version turned.
    """
    record = ws.registry.resolve(policy)
    made = next((r for r in ws.journal.rounds() if r.digest == record.round), None)
    plan = ws.plan(settings_of(made.plan)) if made else None
    if made is None or plan is None or plan_digest(plan) != made.digest or plan.online.on:
        raise ConfigError(
            f"{record.name}: no round on pairs of this workspace made it that can be planned again, so there are no training "
            "pairs to look at; choose a policy of such a round; `workbench policies` lists them"
        )
    if plan.objective.loss in BY_BATCH:
        raise ConfigError(
            f"{record.name}: objective.loss = '{plan.objective.loss}' weighs the pairs of a batch against each other, so that no pair "
            "has a loss of its own; only rounds with other losses can be explained"
        )
    fell = version_ref(ws.version(version).digest, ws.versions.directory)
    with assembly.tools(where) as tools:
        explain_round(plan, (fell, within), tools, ws.services(watch))
    found = explained(ws, made.digest, fell.digest, within)
    assert found is not None  # the step was just done
    return found
