"""A policy answers a file of prompts: completions to read, and comparisons to judge."""

import shutil
from pathlib import Path
from typing import NamedTuple

from preference_data.prompt_file import read_prompts
from preference_data.reading import plain_name
from preference_data.store import Entry, Store
from workbench.completions import FILE, SlicedPrompt, comparisons, read_answered, write_prompts
from workbench.config import GenerateSettings
from workbench.errors import ConfigError
from workbench.rounds.run import Services
from workbench.tasks import GenerateJob, PolicyRef, Tools, reporting


class Request(NamedTuple):
    """What is asked of which policy.

    Attributes:
        prompts: file of prompts, as `preference_data.prompt_file` reads it.
        output: JSONL file for the answers, replaced; None to keep them in the store alone.
    """

    policy: PolicyRef
    prompts: Path
    output: Path | None
    settings: GenerateSettings


class Generated(NamedTuple):
    """What came of it.

    Attributes:
        prompts: prompts answered.
        left_out: prompts that leave no room for an answer in what the policy can read.
        comparisons: prompts whose answers were all different and not empty.
        stored: comparisons new to the store.
        output: where the answers were written.
    """

    prompts: int
    left_out: int
    comparisons: int
    stored: int
    output: Path | None


def answer(request: Request, tools: Tools, services: Services, *, store: Store | None) -> Generated:
    """Sample the answers, write them, and put comparisons into the store where one is given.

    Raises:
        InputRefused: the file of prompts cannot be read.
        ConfigError: no prompt leaves room for an answer.
        ModelError: the policy cannot be loaded.
    """
    prompts = read_prompts(request.prompts)
    staged = services.objects.stage()
    try:
        write_prompts(staged / "prompts.jsonl", (SlicedPrompt(*each) for each in prompts))
        job = GenerateJob(
            policy=request.policy,
            prompts=str(staged / "prompts.jsonl"),
            output=str(_made(staged / "answers")),
            **dict(request.settings),
        )
        tools.generate(job, reporting(services.watch))
        answered = sum(1 for _ in read_answered(staged / "answers"))
        if prompts and not answered:
            raise ConfigError(
                f"{request.prompts}: no prompt leaves room for an answer of max_new_tokens = {request.settings.max_new_tokens} in what the "
                "policy can read; lower it, or shorten the prompts"
            )
        if request.output:
            shutil.copyfile(staged / "answers" / FILE, request.output)
        source = f"generated:{plain_name(request.prompts)}"
        compared = list(comparisons(staged / "answers", job, source=source))
    finally:
        services.objects.discard(staged)
    added = store.add(Entry(one, ()) for one in compared).stored if store else 0
    return Generated(answered, len(prompts) - answered, len(compared), added, request.output)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
