"""What the page asks for and a runner does: rounds, promotions, thresholds, answers. One request after the other."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, assert_never

from preference_data.errors import PreferenceDataError
from preference_data.requests import Request, Requests
from workbench.assembly import Where
from workbench.config import GateSettings, RoundSettings, settings_from
from workbench.errors import ConfigError, StopRequested, WorkbenchError
from workbench.explaining import explain
from workbench.places import Watch, silent
from workbench.rebasing import settings_of
from workbench.workspace import PlannedRound, Workspace

PAUSE_S = 0.5
"""Between looks for a new request."""


def act_on_requests(
    ws: Workspace,
    *,
    where: Where,
    tell: Callable[[str], None],
    watch: Watch = silent,
    until: Callable[[], bool] = lambda: False,
) -> None:
    """Do what is asked for, oldest first, until told to stop; what a runner before this one left open is taken up again.

    Args:
        ws: the workspace.
        where: rounds run.
        tell: told of every request begun and ended.
        watch: told every progress.
        until: asked between requests.
    """
    requests, me = Requests(ws.store.engine), f"runner-{os.getpid()}"
    requests.refile(by=me, message="the runner that had it is gone")
    while not until():
        request = requests.claim(me)
        if request is None:
            time.sleep(PAUSE_S)
            continue
        tell(f"request {request.number}: {request.kind} asked for by {request.by}")
        error = _tried(ws, request, where, watch)
        requests.finish(request.key, by=me, error=error)
        tell(f"request {request.number}: {error or 'done'}")


def _tried(ws: Workspace, request: Request, where: Where, watch: Watch) -> str:
    """Why a request was not done; empty where it was."""
    try:
        _act(ws, request, where, watch)
    except StopRequested as stop:
        return f"stopped: {stop}"
    except (WorkbenchError, PreferenceDataError) as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - one request that cannot be done must not end the runner
        return f"{type(error).__name__}: {error}"
    return ""


def _act(ws: Workspace, request: Request, where: Where, watch: Watch) -> None:
    given = request.payload
    match request.kind:
        case "round":
            _planned(ws, given).run(where=where, watch=watch)
        case "promote":
            ws.promote(given["policy"], reason=given["reason"], by=request.by)
        case "rollback":
            _roll_back(ws, request)
        case "threshold":
            GateSettings.model_validate(given["gate"])  # kept by the request itself; see `views.asked`
        case "generate":
            ws.generate(Path(given["prompts"]), policy=given["policy"], where=where, watch=watch)
        case "import" | "freeze":
            raise ConfigError(f"{request.kind}: not done by a runner; use `workbench {request.kind}`")
        case "explain":
            explain(ws, given["policy"], given["version"], within=given["within"], where=where, watch=watch)
        case _:
            assert_never(request.kind)


def _planned(ws: Workspace, given: Mapping[str, Any]) -> PlannedRound:
    """The round a request asks for.

    Raises:
        ConfigError: it is to go on with one that cannot be planned again.
    """
    planned = ws.round(ws.plan(_settings(ws, given)))
    if planned.digest != given.get("round", planned.digest):
        raise ConfigError(
            f"round {given['round'][:12]}: it cannot be planned again from what is recorded, because it asked questions of a file or "
            "its method means something else now; run it again from its own settings: `workbench round --settings FILE`"
        )
    return planned


def _roll_back(ws: Workspace, request: Request) -> None:
    given, champion = request.payload, ws.registry.resolve("champion")
    if given.get("from", champion.digest) != champion.digest:
        raise ConfigError(f"the champion is {champion.name} by now, not the one that was to give way; nothing was done")
    ws.rollback(reason=given["reason"], by=request.by)


def _settings(ws: Workspace, given: Mapping[str, Any]) -> RoundSettings:
    """Those a request states, or those of a round to go on with.

    Raises:
        ConfigError: they are wrong, or no such round is known.
    """
    if "settings" in given:
        return settings_from(
            dict(given["settings"]), RoundSettings, where=f"request of {given.get('version', 'a round')}"
        )
    record = next((r for r in ws.journal.rounds() if r.digest == given["round"]), None)
    if record is None:
        raise ConfigError(f"round {given['round'][:12]}: unknown; choose one of the list")
    return settings_of(record.plan)
