"""A round done by a runner that lives: asked for as the page would, and followed."""

import secrets
import time
from collections.abc import Callable
from typing import assert_never

from preference_data.records import canonical_json
from preference_data.requests import Requests
from workbench.errors import JournalError, StopRequested, WorkbenchError
from workbench.places import Watch
from workbench.rebasing import settings_of
from workbench.rounds.gate import Verdict
from workbench.rounds.plan import plan_as_json
from workbench.rounds.run import Outcome
from workbench.views.asked import runner_alive
from workbench.workspace import PlannedRound

POLL_S = 0.3
STOPPED = "stopped: "
"""How the reason begins of a request that somebody stopped."""


def follow(planned: PlannedRound, *, by: str, watch: Watch, sleep: Callable[[float], None] = time.sleep) -> Outcome:
    """Ask the runner of a workspace for a round, and tell its progress until it has ended.

    What it is asked for names policies and versions by digest: it does this round, whatever has become champion meanwhile.

    Args:
        planned: the round.
        by: who asks.
        watch: told every progress.
        sleep: waits so many seconds.

    Raises:
        StopRequested: somebody asked it to stop.
        JournalError: it failed, or the runner is gone before it was done; says what to do.
    """
    ws, key = planned.workspace, f"round-{secrets.token_hex(8)}"
    requests = Requests(ws.store.engine)
    settings = settings_of(canonical_json(plan_as_json(planned.plan))).model_copy(
        update={"evaluation": planned.plan.evaluation}  # with the files of its suites
    )
    requests.file(key, "round", {"settings": settings.model_dump(mode="json", exclude_unset=True)}, by=by)
    seen = 0
    while not _done(requests, key, alive=lambda: runner_alive(ws.root)):
        for one in ws.journal.events(planned.digest, seen):
            watch(one.progress)
            seen = one.id
        sleep(POLL_S)
    record = ws.journal.status(planned.digest).round
    child = ws.registry.get(str(record.child))
    return Outcome(record.digest, child, Verdict.from_json(record.verdict), record.state)


def _done(requests: Requests, key: str, *, alive: Callable[[], bool]) -> bool:
    """Whether a request is done; raises where it will not be."""
    request = next(each for each in requests.all() if each.key == key)
    match request.state:
        case "done":
            return True
        case "failed" if request.message.startswith(STOPPED):
            raise StopRequested(request.message.removeprefix(STOPPED))
        case "failed":
            raise WorkbenchError(request.message)
        case "filed" | "claimed":
            if not alive():
                raise JournalError(
                    "the runner is gone; the round waits for the next one (`workbench runner`), which goes on with it"
                )
            return False
        case _:
            assert_never(request.state)
