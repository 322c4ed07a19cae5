"""What a round would read and how long that takes here, without loading any weights."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from preference_data.records import Pair, Split
from preference_data.versions import load_version
from workbench.answers import answers_of, mismatched
from workbench.models.load import config_of, load_tokenizer
from workbench.models.rate import flops_per_s
from workbench.models.sharing import needs_plain_rows
from workbench.models.tokens import encode_pair, leaves_room
from workbench.tasks import Plan, VersionRef, Workload


def workload(plan: Plan) -> Workload:
    """Count the tokens of a plan's version and of its history, and time matrix products."""
    tokenizer = load_tokenizer(plan.base.base_path)
    config = config_of(plan.base.base_path)
    count = partial(
        _Count, tokenizer=tokenizer, limit=plan.training.max_length, prompts=2 if needs_plain_rows(config) else 1
    )
    versions = {v.digest: v for v in (*plan.history, plan.version)}
    train = count(_trained_on(plan, plan.version))
    tests = {digest: count(_pairs(v, "test")) for digest, v in versions.items()}
    old = [count(_trained_on(plan, v)) for v in plan.history] if plan.replay.on else []
    known = sum(each.pairs for each in old)
    of = known if plan.replay.of == "each" else train.pairs
    replayed = known if plan.replay.share == "all" else min(known, round(plan.replay.share * of))
    return Workload(
        train_pairs=train.pairs + replayed,
        left_out=train.left_out + sum(t.left_out for t in tests.values()),
        train_tokens=train.tokens + (sum(each.tokens for each in old) * replayed // known if known else 0),
        test_pairs={digest: t.pairs for digest, t in tests.items()},
        test_tokens={digest: t.tokens for digest, t in tests.items()},
        longest=train.longest,
        flops_per_s=flops_per_s(plan.numerics),
        no_room=_without_room(plan, tokenizer, config) if plan.online.on else 0,
    )


def _pairs(version: VersionRef, split: Split) -> list[Pair]:
    return load_version(Path(version.path)).pairs(split)


def _trained_on(plan: Plan, version: VersionRef) -> list[Pair]:
    """What a round would train on of a version: pairs, or answers by themselves with those beside them."""
    if not plan.objective.of_answers:
        return _pairs(version, "train")
    return mismatched(answers_of(load_version(Path(version.path))), plan.training.seed)


def _without_room(plan: Plan, tokenizer: PreTrainedTokenizerBase, config: Any) -> int:
    """Training prompts of a plan's version after which the base has no positions for a fresh answer."""
    pairs = _pairs(plan.version, "train")
    has_room = leaves_room(tokenizer, config, plan.online.max_new_tokens)
    return sum(not has_room(prompt) for prompt in {pair.prompt.key: pair.prompt for pair in pairs}.values())


class _Count:
    """Tokens of some pairs; `prompts` tells how often a pair's prompt is read."""

    def __init__(self, pairs: Sequence[Pair], *, tokenizer: PreTrainedTokenizerBase, limit: int, prompts: int) -> None:
        self.pairs = self.left_out = self.tokens = self.longest = 0
        for pair in pairs:
            encoded = encode_pair(tokenizer, pair, max_length=limit)
            if encoded is None:
                self.left_out += 1
                continue
            self.pairs += 1
            answers = [len(side.completion) for side in encoded]
            length = prompts * len(encoded.chosen.prompt) + sum(answers)
            self.tokens += length
            self.longest = max(self.longest, length)
