"""The part of the drift page about reward models: what each knows of every version."""

from typing import NamedTuple

from ui.shown import part
from workbench.drift.uncertainty import said
from workbench.places import Places
from workbench.reports.charts import Line, Point, lines
from workbench.reward_list import Measured, RewardModels, RewardRecord, measured


class _Row(NamedTuple):
    """A reward model as it is shown: `said` by version, `surer` on the version it was trained on, or on the newest."""

    name: str
    version: str
    members: tuple[str, ...]
    said: dict[str, str]
    surer: str


def has_reward_models(places: Places) -> bool:
    """Whether there is anything to show."""
    return bool(RewardModels(places).entries())


def rewards_part(places: Places) -> str:
    """The part, as HTML; empty where there is no reward model."""
    if not has_reward_models(places):
        return ""
    found = [(record, measured(places, record)) for record in RewardModels(places).entries()]
    asked = {digest for _, numbers in found for digest in numbers}
    versions = {e.digest: e.name for e in places.versions.entries() if e.digest in asked}
    drawn = lines(
        [
            Line(record.name, tuple(
                Point(k, numbers[digest].accuracy, name) for k, (digest, name) in enumerate(versions.items(), start=1) if digest in numbers
            ))
            for record, numbers in found
        ],
        title="Accuracy of reward models", unit="share of pairs", xs="version",
    )  # fmt: skip
    rows: list[_Row] = []
    for record, numbers in found:
        told = {digest: said(numbers[digest].accuracy) if digest in numbers else "not measured" for digest in versions}
        rows.append(_Row(record.name, record.version, record.members, told, _surer(record, numbers)))
    return part("drift_parts.html", "rewards")(rows, versions, drawn)


def _surer(record: RewardRecord, numbers: dict[str, Measured]) -> str:
    if not numbers:
        return "not measured"
    return said(numbers.get(record.version, next(reversed(numbers.values()))).overconfident, signed=True)
