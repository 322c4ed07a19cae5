"""What a round would read and how fast this machine is, without loading any weights."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedTokenizerBase

from preference_data.records import Split
from preference_data.versions import load_version
from workbench.config import NumericsSettings
from workbench.models.load import load_tokenizer
from workbench.models.numerics import apply_numerics, keep_freed_memory
from workbench.models.sharing import needs_plain_rows
from workbench.models.tokens import encode_pair, leaves_room
from workbench.tasks import Plan, VersionRef, Workload

TURNS, TURN_S = 6, 0.05
"""Turns in which matrix products are timed, and the seconds of each. The fastest counts: in a new process the first turns
wait for threads and for instructions that are compiled when first used, and any turn may meet other work."""

ROWS, WIDTH = 1024, 512
"""Shape of the products: a batch of tokens by the width of a small model."""


def workload(plan: Plan) -> Workload:
    """Count the tokens of a plan's version and of its history, and time matrix products."""
    tokenizer = load_tokenizer(plan.base.base_path)
    config = AutoConfig.from_pretrained(plan.base.base_path, trust_remote_code=False, local_files_only=True)
    count = partial(
        _Count, tokenizer=tokenizer, limit=plan.training.max_length, prompts=2 if needs_plain_rows(config) else 1
    )
    versions = {v.digest: v for v in (*plan.history, plan.version)}
    train = count(plan.version, "train")
    tests = {digest: count(v, "test") for digest, v in versions.items()}
    old = [count(v, "train") for v in plan.history] if plan.replay.on else []
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


def _without_room(plan: Plan, tokenizer: PreTrainedTokenizerBase, config: Any) -> int:
    """Training prompts of a plan's version after which the base has no positions for a fresh answer."""
    pairs = load_version(Path(plan.version.path)).pairs("train")
    has_room = leaves_room(tokenizer, config, plan.online.max_new_tokens)
    return sum(not has_room(prompt) for prompt in {pair.prompt.key: pair.prompt for pair in pairs}.values())


def flops_per_s(numerics: NumericsSettings) -> float:
    """Floating point operations per second in matrix products, at a precision and thread count."""
    keep_freed_memory()  # as where models are loaded: else what is timed is fresh pages for each product
    with torch.inference_mode(), apply_numerics(numerics):
        a, b = (torch.ones(shape, device=numerics.device) for shape in ((ROWS, WIDTH), (WIDTH, 4 * WIDTH)))
        return max(_products_per_s(a, b) for _ in range(TURNS)) * 2 * ROWS * WIDTH * 4 * WIDTH


def _products_per_s(a: torch.Tensor, b: torch.Tensor) -> float:
    count, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < TURN_S:
        torch.mm(a, b)[0, 0].item()  # waits for a GPU
        count += 1
    return count / elapsed


WORTH_IT = 1.3
"""How much faster bfloat16 must be to be worth its rounding. Processors that list instructions for it may still
multiply in it at half the rate of float32."""


def fastest(threads: int) -> NumericsSettings:
    """The precision this machine multiplies faster in, by measurement."""
    single = NumericsSettings(dtype="float32", threads=threads)
    half = NumericsSettings(dtype="bfloat16", threads=threads)
    return half if flops_per_s(half) > WORTH_IT * flops_per_s(single) else single


class _Count:
    """Pairs and tokens of one split; `prompts` tells how often a pair's prompt is read."""

    def __init__(
        self, version: VersionRef, split: Split, *, tokenizer: PreTrainedTokenizerBase, limit: int, prompts: int
    ) -> None:
        self.pairs = self.left_out = self.tokens = self.longest = 0
        for pair in load_version(Path(version.path)).pairs(split):
            encoded = encode_pair(tokenizer, pair, max_length=limit)
            if encoded is None:
                self.left_out += 1
                continue
            self.pairs += 1
            answers = [len(side.completion) for side in encoded]
            length = prompts * len(encoded.chosen.prompt) + sum(answers)
            self.tokens += length
            self.longest = max(self.longest, length)
