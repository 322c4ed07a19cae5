"""Two rounds on a real chat model, from prompts to a report, in minutes on a laptop.

The base answers the project's own prompts twice. A simulated annotator with a stated, verifiable guideline judges;
round 1 aligns. A second guideline that pulls elsewhere gives round 2, anchored to both earlier policies. With files
of preferences given, each file is a round instead.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from preference_data.freeze import FreezeRule
from preference_data.reading import plain_name
from preference_data.records import Comparison, digest, now
from preference_data.samples import prompts
from preference_data.simulate import GUIDELINES, judge
from preference_data.store import Entry
from workbench.assembly import Where
from workbench.config import GenerateSettings, RoundSettings
from workbench.rounds.run import Outcome
from workbench.tasks import Progress
from workbench.workspace import Workspace

FIRST, SECOND = "own-words", "impersonal"
"""Guidelines of the two rounds."""

ANSWER = {"max_new_tokens": 24, "temperature": 0.7, "top_p": 0.9, "batch_size": 96}
ROUND = {
    "method": "mix",
    "objective": {"beta": 0.1},
    "training": {"learning_rate": 1.4e-3, "epochs": 1, "batch_size": 4, "accumulation": 1, "max_length": 256},
    "evaluation": {"samples": 16, "max_new_tokens": 24, "temperature": 0.7, "batch_size": 32,
                   "guidelines": (FIRST, SECOND)},
}  # fmt: skip
SYSTEM = "Answer in one short sentence."
"""What the base is told before each prompt; shorter, and better followed, than the system turn of its own template."""
PROMPTS = 456
"""Prompts answered: eighty or more decided test pairs per guideline."""
FEWER = 40
"""Prompts with `fast`: enough to see every part work, too few to learn anything."""
MOST_PAIRS = 512
"""Pairs read from a file of one's own, so that the demo stays a matter of minutes."""


@dataclass(frozen=True, slots=True)
class Stage:
    """How the demo tells what it does.

    Attributes:
        say: called with a sentence before each part.
        watch: called with the progress of each step.
    """

    say: Callable[[str], None]
    watch: Callable[[Progress], None]


def run(
    root: Path, base: Path, stage: Stage, *, data: Sequence[Path] = (), fast: bool = False, where: Where = "auto"
) -> tuple[Workspace, list[Outcome]]:
    """Run the demo, or go on with it where it was left.

    Args:
        root: workspace of the demo; made if needed.
        base: folder of the base model.
        stage: where to tell.
        data: files of preferences, one round each; the project's prompts and guidelines where there are none.
        fast: a few prompts only.
        where: in this process or on Ray.
    """
    ws = Workspace.init(root, base=base, measure=True)
    if data:
        names = [_import(ws, path, stage) for path in data]
    else:
        names = _judge(ws, _answers(ws, stage, fast=fast, where=where), stage)
    outcomes: list[Outcome] = []
    parent = "base"
    for number, name in enumerate(names, 1):
        version = ws.version(name)
        stage.say(f"Round {number}: aligning on '{name}' ({version.counts['train']} pairs to learn from, "
                  f"{version.counts['test']} to test on), anchored to every policy before it.")  # fmt: skip
        plan = ws.plan(_settings(ws, name, parent))
        outcomes.append(ws.round(plan).run(where=where, watch=stage.watch))
        parent = outcomes[-1].child.digest
    return ws, outcomes


def _answers(ws: Workspace, stage: Stage, *, fast: bool, where: Where) -> list[Comparison]:
    """Comparisons of the base's answers; sampled once, then read from the workspace."""
    asked = prompts()[: FEWER if fast else PROMPTS]
    text = "".join(json.dumps({"prompt": _turns(p.text), "slices": {"domain": p.domain}}) + "\n" for p in asked)
    file = ws.root / f"demo-prompts-{digest(text)[:8]}.jsonl"
    file.write_text(text, encoding="utf-8")
    source = f"generated:{plain_name(file)}"
    if not _of(ws, source):
        stage.say(f"The base answers {len(asked)} of the project's own prompts twice each.")
        settings = GenerateSettings.model_validate(ANSWER)
        ws.generate(file, policy="base", settings=settings, where=where, watch=stage.watch)
    return _of(ws, source)


def _turns(question: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]


def _of(ws: Workspace, source: str) -> list[Comparison]:
    return [e.comparison for e in ws.store.entries() if e.comparison.source == source]


def _judge(ws: Workspace, comparisons: Sequence[Comparison], stage: Stage) -> list[str]:
    """One version per guideline, of the same answers judged by another rule."""
    for name in (FIRST, SECOND):
        guideline = GUIDELINES[name]
        stage.say(f"Guideline '{name}': {guideline.sentence}")
        own = [Comparison(c.prompt, c.completions, f"demo/{name}", c.slices) for c in comparisons]
        ws.store.add(
            Entry(c, (judge(guideline, c, annotator=f"simulated:{name}", at=now()),)) for c in own
        )  # fmt: skip
        ws.freeze(name=name, rule=FreezeRule(sources=(f"demo/{name}",), min_pairs=0))
    return [FIRST, SECOND]


def _import(ws: Workspace, path: Path, stage: Stage) -> str:
    report = ws.import_file(path)
    stage.say(f"{path.name}: {report.read} rows read, {report.stored} stored, {report.duplicates} known already, "
              f"{report.refused} refused.")  # fmt: skip
    name = plain_name(path)
    ws.freeze(name=name, rule=FreezeRule(sources=(name,), max_pairs=MOST_PAIRS))
    return name


def _settings(ws: Workspace, version: str, parent: str) -> RoundSettings:
    """The upper half of the layers is adapted, which saves a third of the training time."""
    layers = ws.registry.resolve("base").facts["num_hidden_layers"]
    training = {**ROUND["training"], "upper_layers": layers // 2}
    return RoundSettings.model_validate({**ROUND, "training": training, "version": version, "parent": parent})
