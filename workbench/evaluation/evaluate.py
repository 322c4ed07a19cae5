"""From a job to measured items: retention, samples, and every suite asked for."""

from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from preference_data.versions import load_version
from workbench.errors import ConfigError, StopRequested
from workbench.evaluation.choice import choice, choice_of
from workbench.evaluation.context import Context, Suite
from workbench.evaluation.retention import retention, singles
from workbench.evaluation.samples import refusal, samples
from workbench.evaluation.text import text
from workbench.items import write_items
from workbench.models.load import family_of
from workbench.models.numerics import apply_numerics
from workbench.models.score_table import read_table
from workbench.tasks import FILE, EvaluateJob, Item, Progress, Report

SUITES: dict[str, Suite] = {"choice": choice, "text": text, "refusal": refusal}
GROUP, HARNESS = "continual_alignment.suites", "lm-eval/"


def suite_named(name: str) -> Suite:
    """A suite of the project, or one registered by an installed package.

    Raises:
        ConfigError: there is none of that name; lists the known ones.
    """
    if name in SUITES:
        return SUITES[name]
    if name.startswith(FILE):
        return choice_of(name)
    if name.startswith(HARNESS):
        if find_spec("lm_eval") is None:
            raise ConfigError(
                f"evaluation.suites: '{name}' needs the package lm-eval: pip install 'lm-eval>=0.4.13,<0.5'"
            )
        return import_module("workbench.evaluation.harness").harness(name.removeprefix(HARNESS))
    elsewhere = {e.name: e for e in entry_points(group=GROUP)}
    if name not in elsewhere:
        known = ", ".join([*SUITES, *elsewhere])
        raise ConfigError(f"evaluation.suites: unknown suite '{name}'; known suites: {known}")
    return elsewhere[name].load()


def evaluate(job: EvaluateJob, report: Report) -> None:
    """Write `items.jsonl`, one measured number per line."""
    suites = [suite_named(name) for name in job.suites]
    with apply_numerics(job.numerics):
        write_items(Path(job.output), _items(job, suites, report))


def _items(job: EvaluateJob, suites: list[Suite], report: Report) -> Iterator[Item]:
    def tell(done: int, total: int) -> None:
        if report(Progress("evaluate", done, total, {})):
            raise StopRequested("the round was asked to stop while measuring; run the same round again to go on")

    context = Context(family=family_of(job.policy, job.numerics), policy=job.policy, settings=job.settings, tell=tell)
    for reference in job.versions:
        version = load_version(Path(reference.path))
        scores = read_table(Path(job.tables[reference.digest]))
        yield from retention(version, scores)
        yield from singles(version, scores)
        yield from samples(context, version, job.against)
    for suite in suites:
        yield from suite(context)
