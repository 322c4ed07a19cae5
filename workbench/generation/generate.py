"""Answers of one policy to a file of prompts."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from preference_data.records import Comparison, Completion, Message, Prompt, Sampled
from workbench.errors import ConfigError, StopRequested
from workbench.models.load import family_of
from workbench.models.numerics import apply_numerics
from workbench.models.sampling import Sampling, sample
from workbench.tasks import GenerateJob, Progress, Report

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


def generate(job: GenerateJob, report: Report) -> None:
    """Write `completions.jsonl`: one line per prompt with its `count` answers, in the order of the prompts."""
    prompts = read_prompts(Path(job.prompts))
    repeated = [p.prompt for p in prompts for _ in range(job.count)]
    sampling = Sampling(job.max_new_tokens, job.temperature, job.top_p, job.batch_size, job.seed)

    def tell(done: int) -> None:
        if report(Progress("generate", done, len(repeated), {})):
            raise StopRequested("generation was asked to stop; run it again to start over")

    family = family_of(job.policy, job.numerics)
    with apply_numerics(job.numerics), family.using(job.policy) as model:
        answers = sample(model, family.tokenizer, repeated, sampling, layout=family.layout, progress=tell)
    with (Path(job.output) / FILE).open("w", encoding="utf-8") as file:
        for i, prompt in enumerate(prompts):
            texts = [a.text for a in answers[i * job.count : (i + 1) * job.count]]
            row = {
                "messages": [list(m) for m in prompt.prompt.messages],
                "slices": dict(prompt.slices),
                "answers": texts,
            }
            file.write(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n")


def comparisons(folder: Path, job: GenerateJob, *, source: str) -> Iterator[Comparison]:
    """Comparisons of the answers a job wrote; prompts with an empty or twice the same answer give none."""
    origin = Sampled(job.policy.digest, job.temperature, job.top_p, job.max_new_tokens, job.seed)
    with (folder / FILE).open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            texts = row["answers"]
            if len(set(texts)) < len(texts) or not all(t.strip() for t in texts):
                continue
            yield Comparison(
                prompt=Prompt(tuple(Message(*m) for m in row["messages"])),
                completions=tuple(Completion(t, origin) for t in texts),
                source=source,
                slices=row["slices"],
            )
