"""Telling others how a round ended: lines of JSON in a file, the same posted to an address."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import httpx

from workbench.errors import ConfigError
from workbench.places import AlertSettings, Places
from workbench.rounds.journal import RoundRecord

TRIES, WAIT_S = 3, 10.0
_LOG = logging.getLogger(__name__)


def require_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that is not installed, before any model loads.

    Raises:
        ConfigError: one is missing.
    """
    for name in names:
        if find_spec(name) is None:
            raise ConfigError(
                f"workbench.toml [report_to]: {name} is not installed; `pip install {name}`, or leave it out"
            )


@contextmanager
def telling(places: Places, round_digest: str) -> Iterator[None]:
    """Tell how a round ends, whatever way it ends. That nobody could be told ends no round."""
    try:
        yield
    finally:
        record = next((r for r in places.journal.rounds() if r.digest == round_digest), None)
        if record is not None:
            tell(places, record)


def tell(places: Places, record: RoundRecord) -> None:
    """Tell of a round, where somebody wants to know."""
    settings = places.settings.alerts
    found = message(record, settings)
    if found is None or not (settings.file or settings.webhook):
        return
    line = json.dumps(found, ensure_ascii=False)
    if settings.file:
        try:
            with (places.root / settings.file).open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            _LOG.warning("alerts.file %s: %s", settings.file, error.strerror)
    if settings.webhook:
        _post(settings.webhook, line)


def message(record: RoundRecord, settings: AlertSettings) -> dict[str, Any] | None:
    """What is told of a round; None where it is no news."""
    verdict: Mapping[str, Any] = record.verdict or {"criteria": []}
    failed = [c for c in verdict["criteria"] if not c["passed"]]
    near = [c for c in verdict["criteria"] if c["passed"] and _is_near(c, settings.near)]
    if record.state == "promoted" and not near and settings.on == "problems":
        return None
    return {
        "round": record.digest, "number": record.number, "state": record.state, "message": record.message,
        "policy": record.child, "at": record.ended_at,
        "failed": [{"criterion": c["name"], "why": c["reason"]} for c in failed],
        "near": [{"criterion": c["name"], "why": c["reason"]} for c in near],
    }  # fmt: skip


def _is_near(criterion: Mapping[str, Any], share: float) -> bool:
    """A loss or KL that is beyond a share of its threshold."""
    value, threshold = criterion["value"], criterion["threshold"]
    kind = criterion["name"].partition("/")[0]
    if kind not in {"retention", "tax", "kl"} or not value or value["value"] is None or not threshold:
        return False
    return value["value"] >= share * threshold


def _post(address: str, line: str) -> None:
    """Post, some times where nobody answers."""
    for attempt in range(1, TRIES + 1):
        try:
            httpx.post(
                address, content=line, headers={"content-type": "application/json"}, timeout=WAIT_S
            ).raise_for_status()
        except httpx.HTTPError as error:
            _LOG.warning("alerts.webhook, try %d of %d: %s", attempt, TRIES, error)
        else:
            return
