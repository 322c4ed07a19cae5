"""Dataset versions of a stream for `workbench bench methods`: one per task, in a workspace of the bench."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from preference_data.freeze import FreezeRule
from preference_data.reading import plain_name
from preference_data.records import Comparison, Completion, Pair, Pairwise, Sampled, Split, Verdict, digest, now
from preference_data.samples import prompts
from preference_data.simulate import GUIDELINES, judge
from preference_data.splits import decide
from preference_data.versions import write_version
from workbench.bench.streams import Task
from workbench.completions import read_answered
from workbench.config import GenerateSettings, NumericsSettings
from workbench.errors import ConfigError
from workbench.objects import entry, manifest_digest
from workbench.policies.checkpoints import read_base
from workbench.workspace import Workspace

DATA = "WORKBENCH_BENCH_DATA"
"""Environment variable with the folder of the files that streams name."""
SHARES: dict[Split, float] = {"test": 0.57, "select": 0.1}
"""Of the clusters of near-duplicates; the rest is for training. More for testing than a freeze gives, so that small
differences show."""
ANSWERS = GenerateSettings(count=6, max_new_tokens=24, temperature=1.0, batch_size=96)
SYSTEM = "Answer in one short sentence."


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
    files = {name: _of_file(ws, name, task.mapping) for task in stream for name in task.files}
    holders = Counter(key for pairs in files.values() for key in {pair.prompt.key for pair in pairs})
    found = {
        task.name: [p for name in task.files for p in files[name]] or _of_guideline(ws, task, setting)
        for task in stream
    }
    clusters = _clusters(pair for pairs in found.values() for pair in pairs)
    for task in stream:
        setting.tell(f"pairs of {task.name}")
        alone = [replace(p, slices={"source": task.name}) for p in found[task.name] if holders[p.prompt.key] <= 1]
        split = _split(alone, clusters, setting.sizes, task.part)
        version = write_version(split, ws.versions.directory, rule={"stream": task.name}, watermark=0, head="")
        ws.versions.add(task.name, version.digest)
        chosen_on = [replace(pair, split="test") for pair in split if pair.split == "select"]
        twin = write_version(chosen_on, ws.versions.directory, rule={"select of": task.name}, watermark=0, head="")
        ws.versions.add(select_of(task.name), twin.digest)
    return names


def made_of(stream: Sequence[Task], base: Path) -> dict[str, str]:
    """Digests of what the versions of a stream are made of: its tasks, their files, the base that answers.

    Raises:
        ConfigError: a file is missing; names the variable that says where files are.
    """
    files = {name: _file(name) for task in stream for name in task.files}
    mappings = {task.mapping: Path(task.mapping) for task in stream if task.mapping and Path(task.mapping).is_file()}
    return {
        "tasks": digest([task._asdict() for task in stream]),
        "files": digest({name: entry(path).sha256 for name, path in (files | mappings).items()}),
        "base": manifest_digest(read_base(base).weights),
    }


def select_of(name: str) -> str:
    """The version whose test pairs are the select pairs of another: what settings are chosen on."""
    return f"{name}-select"


def _file(name: str) -> Path:
    folder = os.environ.get(DATA)
    if not folder or not (Path(folder) / name).exists():
        raise ConfigError(f"{name}: not found; name the folder it lies in by the environment variable {DATA}")
    return Path(folder) / name


def _of_file(ws: Workspace, name: str, mapping: str | None) -> list[Pair]:
    # Pairs are told apart by the name of their file, and files of several tasks may all be called train.json.
    link = ws.root / "bench-files" / name.replace("/", "-")
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(_file(name).resolve())
    ws.import_file(link, mapping=mapping)
    source = plain_name(link)
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
