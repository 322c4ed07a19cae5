"""Streams of preferences that change from round to round, for `workbench bench methods`.

A stream is a list of tasks; a task becomes one dataset version. Files of tasks are looked for in the folder that the
environment variable `WORKBENCH_BENCH_DATA` names; guidelines need no file: the base answers the project's own prompts,
and a guideline with a known truth judges.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from preference_data.simulate import GUIDELINES
from workbench.errors import ConfigError

MANIFEST = ".toml"


class Task(NamedTuple):
    """One round's worth of preferences.

    Attributes:
        name: unique in its stream.
        files: below the data folder; empty for a guideline.
        mapping: of the files, as `import --mapping` takes it.
        guideline: what judges the base's answers; empty for files.
        part: which part of the training pairs, of how many; for streams that come back to a task.
        update: True if it replaces the task before it, or the name of the task it replaces.
    """

    name: str
    files: tuple[str, ...] = ()
    mapping: str | None = None
    guideline: str = ""
    part: tuple[int, int] = (0, 1)
    update: bool | str = False


def _personas(*names: str) -> tuple[Task, ...]:
    return tuple(Task(name, (f"personas/{name}.jsonl",), "personas") for name in names)


def _guidelines(*names: str) -> tuple[Task, ...]:
    return tuple(Task(name, guideline=name) for name in names)


HELPFUL, HARMLESS = ("hh-rlhf/helpful-base.train.jsonl.gz",), ("hh-rlhf/harmless-base.jsonl.gz",)

LIFEALIGN = {
    "capybara": "Capybara-Preferences", "hc3": "HC3", "harmless": "hh-rlhf-harmless-base",
    "helpful": "hh-rlhf-helpful-base", "safe": "safe-rlhf", "truthful": "TruthfulQA",
}  # fmt: skip
"""Tasks of LifeAlign (arXiv 2509.17183) in its order, and the folders of its repository's `data` they lie in."""

STREAMS: Mapping[str, tuple[Task, ...]] = {
    "personas": _personas("agreeableness", "risk-seeking", "interest-in-art", "neuroticism"),
    "personas-permuted": _personas("neuroticism", "interest-in-art", "agreeableness", "risk-seeking"),
    "personas-independent": _personas("interest-in-art", "interest-in-music", "interest-in-science", "interest-in-sports"),
    "personas-related": _personas("agreeableness", "conscientiousness", "extraversion", "interest-in-music"),
    "personas-contradictory": (
        *_personas("risk-averse", "interest-in-science"),
        *(task._replace(update="risk-averse") for task in _personas("risk-seeking")),
        *_personas("extraversion"),
    ),
    "guidelines": _guidelines("own-words", "impersonal", "plain-words", "telegram"),
    "hh": (
        Task("helpful-1", HELPFUL, part=(0, 2)),
        Task("harmless-1", HARMLESS, part=(0, 2)),
        Task("helpful-2", HELPFUL, part=(1, 2)),
        Task("harmless-2", HARMLESS, part=(1, 2)),
    ),
    "lifealign": tuple(
        Task(name, (f"{folder}/train.json", f"{folder}/test.json")) for name, folder in LIFEALIGN.items()
    ),
    "long": tuple(
        Task(f"{name}-{turn + 1}", (f"personas/{name}.jsonl",), "personas", part=(turn, 2))
        for turn in range(2)
        for name in ("agreeableness", "risk-seeking", "interest-in-art", "neuroticism", "conscientiousness",
                     "interest-in-sports")
    ),
}  # fmt: skip
"""By name. `long` has twelve rounds, over six tasks twice."""


class _Entry(BaseModel):
    """A task in a manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[\w][\w.-]*$")
    files: tuple[str, ...] = ()
    mapping: str | None = None
    guideline: str = ""
    part: tuple[int, int] = (0, 1)
    update: bool | str = False

    @model_validator(mode="after")
    def _has_pairs(self) -> "_Entry":
        if bool(self.files) == bool(self.guideline):
            raise ValueError(f"task {self.name!r}: expected either files or a guideline")
        if self.guideline and self.guideline not in GUIDELINES:
            raise ValueError(f"guideline {self.guideline!r}: unknown; known: {', '.join(GUIDELINES)}")
        number, of = self.part
        if not 0 <= number < of:
            raise ValueError(f"part = {list(self.part)}: expected a number from 0, and of how many parts")
        return self


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    task: tuple[_Entry, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _names_differ(self) -> "_Manifest":
        names = [each.name for each in self.task]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two tasks are called {twice!r}; name each once")
        for i, each in enumerate(self.task):
            if isinstance(each.update, str) and each.update not in names[:i]:
                raise ValueError(f"task {each.name!r} replaces {each.update!r}, which is no task before it")
        return self


def stream(asked: str) -> tuple[str, tuple[Task, ...]]:
    """A stream's name and tasks, by the name of a built-in one or by the path of a manifest.

    A manifest is TOML with a `[[task]]` for each round: `name`; `files` below the data folder, or a `guideline`; maybe
    `mapping`, `part` (which part of the training pairs, of how many) and `update`.

    Raises:
        ConfigError: there is no such stream, or the manifest cannot be read; says what is expected.
    """
    if asked in STREAMS:
        return asked, STREAMS[asked]
    if not asked.endswith(MANIFEST):
        raise ConfigError(f"stream {asked!r}: unknown; known: {', '.join(STREAMS)}, or the path of a manifest (.toml)")
    path = Path(asked)
    try:
        manifest = _Manifest.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigError(f"{path}: no manifest of a stream: {error}") from error
    return path.stem, tuple(Task(**each.model_dump()) for each in manifest.task)
