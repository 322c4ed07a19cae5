"""Files of prompts to be answered, and of prompts with their answers."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from preference_data.records import Comparison, Completion, Message, Prompt, Sampled
from workbench.errors import ConfigError
from workbench.tasks import GenerateJob

FILE = "completions.jsonl"


class SlicedPrompt(NamedTuple):
    """A prompt and what it belongs to."""

    prompt: Prompt
    slices: Mapping[str, str]


def write_prompts(path: Path, prompts: Iterable[SlicedPrompt]) -> None:
    """Prompts as the JSONL a generation job reads."""
    with path.open("w", encoding="utf-8") as file:
        for p in prompts:
            row = {"messages": [list(m) for m in p.prompt.messages], "slices": dict(p.slices)}
            file.write(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n")


def read_prompts(path: Path) -> list[SlicedPrompt]:
    """The inverse of `write_prompts`.

    Raises:
        ConfigError: a line is no prompt; names file and line.
    """
    found: list[SlicedPrompt] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                prompt = Prompt(tuple(Message(*m) for m in row["messages"]))
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    f'{path.name} line {number}: no prompt: {error}; expected {{"messages": [["user", "…"]]}}'
                ) from error
            found.append(SlicedPrompt(prompt, row.get("slices", {})))
    return found


class Answered(NamedTuple):
    """A prompt, what it belongs to, its answers, and which of them ended by themselves."""

    prompt: Prompt
    slices: Mapping[str, str]
    answers: tuple[str, ...]
    finished: tuple[bool, ...]


def write_answered(folder: Path, answered: Iterable[Answered]) -> None:
    """Prompts with their answers, one per line of `completions.jsonl`."""
    with (folder / FILE).open("w", encoding="utf-8") as file:
        for each in answered:
            row = {
                "messages": [list(m) for m in each.prompt.messages],
                "slices": dict(each.slices),
                "answers": list(each.answers),
                "finished": list(each.finished),
            }
            file.write(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n")


def read_answered(folder: Path) -> Iterator[Answered]:
    """The inverse of `write_answered`."""
    with (folder / FILE).open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            prompt = Prompt(tuple(Message(*m) for m in row["messages"]))
            yield Answered(prompt, row["slices"], tuple(row["answers"]), tuple(row["finished"]))


def comparisons(folder: Path, job: GenerateJob, *, source: str) -> Iterator[Comparison]:
    """Comparisons of the answers a job wrote; prompts with an empty or twice the same answer give none."""
    origin = Sampled(job.policy.digest, job.temperature, job.top_p, job.max_new_tokens, job.seed)
    for prompt, slices, texts, _ in read_answered(folder):
        if len(set(texts)) == len(texts) and all(t.strip() for t in texts):
            completions = tuple(Completion(text, origin) for text in texts)
            yield Comparison(prompt=prompt, completions=completions, source=source, slices=slices)
