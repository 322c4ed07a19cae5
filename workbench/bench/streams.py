"""Streams of preferences that change from round to round, for `workbench bench methods`.

A stream is a list of tasks; a task becomes one dataset version. Files of tasks are looked for in the folder that the
environment variable `WORKBENCH_BENCH_DATA` names; guidelines need no file: the base answers the project's own prompts,
and a guideline with a known truth judges.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from preference_data.freeze import FreezeRule
from preference_data.records import Comparison, Completion, Pair, Pairwise, Sampled, Split, Verdict, digest, now
from preference_data.samples import prompts
from preference_data.simulate import GUIDELINES, judge
from preference_data.splits import decide
from preference_data.versions import write_version
from workbench.completions import read_answered
from workbench.config import GenerateSettings, NumericsSettings
from workbench.errors import ConfigError
from workbench.workspace import Workspace

DATA = "WORKBENCH_BENCH_DATA"
"""Environment variable with the folder of the files that streams name."""
SHARES: dict[Split, float] = {"test": 0.57, "select": 0.1}
"""Of the clusters of near-duplicates; the rest is for training. More for testing than a freeze gives, so that small
differences show."""
ANSWERS = GenerateSettings(count=6, max_new_tokens=24, temperature=1.0, batch_size=96)
SYSTEM = "Answer in one short sentence."


class Task(NamedTuple):
    """One round's worth of preferences.

    Attributes:
        name: unique in its stream.
        file: below the data folder; empty for a guideline.
        mapping: of the file, as `import --mapping` takes it.
        guideline: what judges the base's answers; empty for a file.
        part: which part of the training pairs, of how many; for streams that come back to a task.
        update: whether it replaces an earlier task.
    """

    name: str
    file: str = ""
    mapping: str | None = None
    guideline: str = ""
    part: tuple[int, int] = (0, 1)
    update: bool = False


def _personas(*names: str) -> tuple[Task, ...]:
    return tuple(Task(name, f"personas/{name}.jsonl", "personas") for name in names)


def _guidelines(*names: str) -> tuple[Task, ...]:
    return tuple(Task(name, guideline=name) for name in names)


HELPFUL, HARMLESS = "hh-rlhf/helpful-base.train.jsonl.gz", "hh-rlhf/harmless-base.jsonl.gz"

STREAMS: Mapping[str, tuple[Task, ...]] = {
    "personas": _personas("agreeableness", "risk-seeking", "interest-in-art", "neuroticism"),
    "personas-permuted": _personas("neuroticism", "interest-in-art", "agreeableness", "risk-seeking"),
    "personas-independent": _personas("interest-in-art", "interest-in-music", "interest-in-science", "interest-in-sports"),
    "personas-related": _personas("agreeableness", "conscientiousness", "extraversion", "interest-in-music"),
    "personas-contradictory": (
        *_personas("risk-averse", "interest-in-science"),
        *(task._replace(update=True) for task in _personas("risk-seeking")),
        *_personas("extraversion"),
    ),
    "guidelines": _guidelines("own-words", "impersonal", "plain-words", "telegram"),
    "hh": (
        Task("helpful-1", HELPFUL, part=(0, 2)),
        Task("harmless-1", HARMLESS, part=(0, 2)),
        Task("helpful-2", HELPFUL, part=(1, 2)),
        Task("harmless-2", HARMLESS, part=(1, 2)),
    ),
    "long": tuple(
        Task(f"{name}-{turn + 1}", f"personas/{name}.jsonl", "personas", part=(turn, 2))
        for turn in range(2)
        for name in ("agreeableness", "risk-seeking", "interest-in-art", "neuroticism", "conscientiousness",
                     "interest-in-sports")
    ),
}  # fmt: skip
"""By name. `long` has twelve rounds, over six tasks twice."""


class Sizes(NamedTuple):
    """Most pairs of each split."""

    train: int
    select: int
    test: int


class Setting(NamedTuple):
    """How versions are made.

    Attributes:
        sizes: most pairs of each split.
        numerics: of the base's answers.
        tell: called with what is being done.
    """

    sizes: Sizes
    numerics: NumericsSettings
    tell: Callable[[str], None]


def prepare(ws: Workspace, stream: Sequence[Task], setting: Setting) -> list[str]:
    """Names of the versions of a stream in a workspace, one per task; made where they are missing.

    Prompts that several files share are left out of all: their answers may contradict each other.

    Raises:
        ConfigError: a file is missing; names the variable that says where files are.
    """
    names = [task.name for task in stream]
    if set(names) <= {entry.name for entry in ws.version_entries()}:
        return names
    files = {task.file: _of_file(ws, task) for task in stream if task.file}
    holders = Counter(key for pairs in files.values() for key in {pair.prompt.key for pair in pairs})
    found = {task.name: files[task.file] if task.file else _of_guideline(ws, task, setting) for task in stream}
    clusters = _clusters(pair for pairs in found.values() for pair in pairs)
    for task in stream:
        setting.tell(f"pairs of {task.name}")
        alone = [replace(p, slices={"source": task.name}) for p in found[task.name] if holders[p.prompt.key] <= 1]
        split = _split(alone, clusters, setting.sizes, task.part)
        version = write_version(split, ws.versions.directory, rule={"stream": task.name}, watermark=0, head="")
        ws.versions.add(task.name, version.digest)
    return names


def _of_file(ws: Workspace, task: Task) -> list[Pair]:
    folder = os.environ.get(DATA)
    if not folder or not (Path(folder) / task.file).exists():
        raise ConfigError(f"{task.file}: not found; name the folder it lies in by the environment variable {DATA}")
    ws.import_file(Path(folder) / task.file, mapping=task.mapping)
    source = Path(task.file).name.split(".jsonl")[0]
    frozen = ws.freeze(name=f"all of {source}", rule=FreezeRule(sources=(source,), min_pairs=0))
    return frozen.version.pairs()


def _of_guideline(ws: Workspace, task: Task, setting: Setting) -> list[Pair]:
    rule, found = GUIDELINES[task.guideline], list[Pair]()
    for comparison in _answered(ws, setting):
        opinion = judge(rule, comparison, annotator=task.guideline, at=now()).opinion
        first, second = (completion.text for completion in comparison.completions)
        match opinion:
            case Pairwise(verdict=Verdict.FIRST):
                chosen, rejected = first, second
            case Pairwise(verdict=Verdict.SECOND):
                chosen, rejected = second, first
            case _:
                continue
        found.append(Pair(comparison.prompt, chosen, rejected, 1.0, None, (), {}, "train"))
    return found


def _answered(ws: Workspace, setting: Setting) -> list[Comparison]:
    """The base's answers two by two; sampled once per workspace."""
    folder = ws.root / "bench-answers"
    if not folder.exists():
        setting.tell("the base answers the project's prompts")
        asked = ws.root / "bench-prompts.jsonl"
        turns = [[{"role": "system", "content": SYSTEM}, {"role": "user", "content": each.text}] for each in prompts()]
        asked.write_text("".join(json.dumps({"prompt": each}) + "\n" for each in turns), encoding="utf-8")
        settings = ANSWERS.model_copy(update={"numerics": setting.numerics})
        made = ws.root / "bench-answers.part"
        made.mkdir(exist_ok=True)
        ws.generate(asked, made / "completions.jsonl", policy="base", settings=settings, add=False)
        made.rename(folder)
    origin = Sampled("base", ANSWERS.temperature, ANSWERS.top_p, ANSWERS.max_new_tokens, ANSWERS.seed)
    return [
        Comparison(each.prompt, (Completion(one, origin), Completion(two, origin)), "bench", {})
        for each in read_answered(folder)
        for one, two in list(pairwise(dict.fromkeys(text for text in each.answers if text.strip())))[::2]
    ]


def _clusters(pairs: Iterable[Pair]) -> dict[str, str]:
    """The cluster of near-duplicates of each prompt of a stream, by prompt key."""
    texts = {pair.prompt.key: pair.prompt.text for pair in pairs}
    return {assigned.prompt_key: assigned.cluster for assigned in decide(texts, ()).assignments}


def _split(pairs: Iterable[Pair], clusters: Mapping[str, str], sizes: Sizes, part: tuple[int, int]) -> list[Pair]:
    """Pairs with their splits: near-duplicates together, the largest sizes, and of the training pairs one part."""
    places: dict[Split, list[Pair]] = {"train": [], "select": [], "test": []}
    for pair in sorted(pairs, key=lambda each: digest(["stream", each.key])):
        if pair.prompt.key in clusters:
            places[_place(clusters[pair.prompt.key])].append(pair)
    number, of = part
    places["train"] = places["train"][number::of]
    most: dict[Split, int] = dict(zip(("train", "select", "test"), sizes, strict=True))
    return [replace(pair, split=split) for split, found in places.items() for pair in found[: most[split]]]


def _place(cluster: str) -> Split:
    drawn = int(digest(["stream split", cluster])[:13], 16) / 16**13
    for split, share in SHARES.items():
        if drawn < share:
            return split
        drawn -= share
    return "train"
