"""Which prompts are answered in which step."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from preference_data.records import Pair
from preference_data.versions import load_version
from workbench.config import OnlineSettings
from workbench.errors import ConfigError
from workbench.models.forward import Layout
from workbench.models.load import base_of, config_of
from workbench.models.tokens import Encoded, longest_prompt, prompt_ids
from workbench.models.weights import weights_of
from workbench.rewards import Models, all_of
from workbench.rewards.trained import by_model
from workbench.tasks import AGE, NEW, TrainJob
from workbench.training.batches import weights_for
from workbench.training.online.trainer import Asked, Fresh, group_tokens


class Prompts(NamedTuple):
    """What a job asks.

    Attributes:
        asked: each prompt once, in the order of their keys.
        longest: tokens of the longest.
        left_out: prompts that the base has no positions for an answer to.
    """

    asked: list[Asked]
    longest: int
    left_out: int


def prompts_of(job: TrainJob, tokenizer: PreTrainedTokenizerBase) -> Prompts:
    """The prompts of a job's training pairs; one that is new anywhere is new.

    Those that fill `max_length` are left out, as they are in rounds on pairs, and those that leave no room for an answer.

    Raises:
        ConfigError: none is left.
    """
    found: dict[str, Pair] = {}
    for pair in sorted(load_version(Path(job.version.path)).pairs("train"), key=lambda p: (_is_old(p), p.key)):
        found.setdefault(pair.prompt.key, pair)
    lengths = [(pair, len(prompt_ids(tokenizer, pair.prompt))) for _, pair in sorted(found.items())]
    short = [(pair, tokens) for pair, tokens in lengths if tokens < job.training.max_length]
    most = longest_prompt(config_of(job.parent.base_path), job.online.max_new_tokens)
    fitting = [(pair, tokens) for pair, tokens in short if tokens <= most]
    if not fitting:
        raise ConfigError(
            f"version {job.version.digest[:12]} has no training prompt shorter than training.max_length = {job.training.max_length} tokens "
            f"that leaves room for an answer of online.max_new_tokens = {job.online.max_new_tokens}; lower the latter, or freeze a version "
            "with shorter prompts"
        )
    anchors = list(job.anchors)
    asked = [Asked(p.prompt, p.slices, weights_for(p, anchors, job.by_slice), _is_old(p)) for p, _ in fitting]
    return Prompts(asked, max(tokens for _, tokens in fitting), len(short) - len(fitting))


def largest_group(settings: OnlineSettings, longest: int, layout: Layout) -> int:
    """Most tokens a prompt has with all its answers, which are computed in one pass, as they are laid out."""
    answer = Encoded((0,) * longest, (0,) * settings.max_new_tokens)
    return group_tokens([answer] * settings.samples, layout)


def order_of(asked: Sequence[Asked], settings: OnlineSettings, *, seed: int) -> tuple[list[int], int]:
    """Prompts of all steps, one step after the other, and how many a step has.

    New ones come in permuted turns; old ones with them, as many as there are to every new one, at least one where there are any.
    """
    new = [i for i, each in enumerate(asked) if not each.old]
    old = [i for i, each in enumerate(asked) if each.old]
    fresh = min(settings.prompts, len(new)) if new else 0
    again = max(round(fresh * len(old) / len(new)), min(len(old), 1)) if new else settings.prompts
    rng = np.random.default_rng(seed)
    turns = [(_turns(new, rng), fresh), (_turns(old, rng), again)]
    steps = [[i for turn, count in turns for i in islice(turn, count)] for _ in range(settings.steps)]
    return list(chain.from_iterable(steps)), fresh + again


def _turns(indices: Sequence[int], rng: np.random.Generator) -> Iterator[int]:
    """All of them in one order, then in another, for ever."""
    while indices:
        yield from (indices[k] for k in rng.permutation(len(indices)))


def _is_old(pair: Pair) -> bool:
    return pair.slices.get(AGE, NEW) != NEW


def models_of(job: TrainJob) -> Models:
    """The job's reward models, each loaded when it is asked for."""
    known = {ref.digest: ref for ref in job.reward_models}
    return lambda digest: by_model(known[digest], job.numerics)


def fresh_answers(job: TrainJob, model: Any, asked: Sequence[Asked]) -> Fresh:
    """Where a job's answers come from.

    Raises:
        ConfigError: a reward of that name does not exist.
    """
    settings, models = job.online, models_of(job)
    order, per_step = order_of(asked, settings, seed=job.training.seed)
    return Fresh(
        settings, asked, reward=all_of(settings.rewards, models) if settings.rewards else None,
        anchors=[weights_of(a.policy, model) for a in job.anchors],
        base=weights_of(base_of(job.parent), model) if settings.kl_base_budget else None, order=order, per_step=per_step,
        seed=job.training.seed,
    )  # fmt: skip
