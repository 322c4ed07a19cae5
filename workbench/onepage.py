"""A whole anchored round on one page: no Ray, no TRL, no registry, no cache, no padding.

Read this to see what a round does. The tests hold the real one to it, so it cannot rot. Everything is spelled out
once more instead of being imported from where the real round has it: an oracle that shares code shares mistakes.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, get_scheduler

from preference_data.records import Pair, Prompt
from workbench.config import TrainingSettings

BASE = ""
"""Stands for the base where a policy is named by the folder of its adapter."""


class Child(NamedTuple):
    """What a round makes.

    Attributes:
        weights: the adapter, by parameter name.
        first_loss, expected_loss: of the first batch, measured and from the frozen policies' scores.
        margins: log p(chosen) - log p(rejected) of the test pairs under the child, nats.
    """

    weights: dict[str, Tensor]
    first_loss: float
    expected_loss: float
    margins: list[float]


def run_round(
    base: str,
    parent: str,
    anchors: Sequence[tuple[str, float]],
    pairs: Sequence[Pair],
    *,
    beta: float,
    settings: TrainingSettings,
) -> Child:
    """Train the child of `parent` on the training pairs, held by `anchors`, and measure it on the test pairs.

    Args:
        base: folder of the base model.
        parent: folder of the parent's adapter, or `BASE`.
        anchors: folder of each anchor's adapter, or `BASE`, with its weight; the weights sum to 1.
        pairs: pairs of a version, with their splits.
        beta: inverse temperature of the sigmoid loss, per nat.
        settings: method is LoRA on all layers; `rank`, `learning_rate`, … as in the real round.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    train = sorted((p for p in pairs if p.split == "train"), key=lambda p: p.key)
    frozen = {folder: load(base, folder) for folder in {parent, *(folder for folder, _ in anchors)}}

    # 1. Score: each frozen policy's margin D = log p(chosen) - log p(rejected) on every training pair.
    with torch.no_grad():
        scores = {f: [float(margin(m, tokenizer, p, settings.max_length)) for p in train] for f, m in frozen.items()}
    # The weighted geometric mean of the anchors is the reference; its normaliser cancels in a pair.
    reference = [sum(weight * scores[folder][i] for folder, weight in anchors) for i in range(len(train))]

    # 2. Optimise: -log sigmoid(beta (D_policy - D_reference)), weighted per pair.
    child = trainable(base, parent, settings)
    parameters = [p for p in child.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    rng = np.random.default_rng(settings.seed)
    order = [int(i) for _ in range(settings.epochs) for i in rng.permutation(len(train))]
    batches = [order[k : k + settings.batch_size] for k in range(0, len(order), settings.batch_size)]
    steps = [batches[k : k + settings.accumulation] for k in range(0, len(batches), settings.accumulation)]
    schedule = get_scheduler("linear", optimizer, round(settings.warmup_share * len(steps)), len(steps))
    first_loss = math.nan
    for micro_batches in steps:
        pairs_of_step = sum(map(len, micro_batches))
        for batch in micro_batches:
            losses = [
                train[i].weight * -torch.nn.functional.logsigmoid(
                    beta * (margin(child, tokenizer, train[i], settings.max_length) - reference[i])
                )
                for i in batch
            ]  # fmt: skip
            loss = torch.stack(losses).sum()
            if math.isnan(first_loss):
                first_loss = float(loss.detach()) / len(batch)
            (loss / pairs_of_step).backward()
        torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    # 3. Evaluate: does the child prefer what people preferred, on pairs it has not seen?
    child.eval()
    with torch.no_grad():
        test = sorted((p for p in pairs if p.split == "test"), key=lambda p: p.key)
        margins = [float(margin(child, tokenizer, p, settings.max_length)) for p in test]
    gaps = [beta * (scores[parent][i] - reference[i]) for i in batches[0]]
    expected = sum(train[i].weight * math.log1p(math.exp(-g)) for i, g in zip(batches[0], gaps, strict=True))
    return Child(get_peft_model_state_dict(child), first_loss, expected / len(gaps), margins)


def load(base: str, adapter: str) -> Any:
    """A frozen policy."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return (PeftModel.from_pretrained(model, adapter) if adapter else model).eval()


def trainable(base: str, parent: str, settings: TrainingSettings) -> Any:
    """The parent's adapter to be continued, or a fresh one that equals the base exactly."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if parent:
        return PeftModel.from_pretrained(model, parent, is_trainable=True).train()
    torch.manual_seed(settings.seed)
    lora = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )  # fmt: skip
    return get_peft_model(model, lora).train()


def margin(model: Any, tokenizer: Any, pair: Pair, max_length: int) -> Tensor:
    """Margin: log p(chosen | prompt) - log p(rejected | prompt), nats, summed over the answers' tokens."""
    return logp(model, tokenizer, pair.prompt, pair.chosen, max_length=max_length) - logp(
        model, tokenizer, pair.prompt, pair.rejected, max_length=max_length
    )


def logp(model: Any, tokenizer: Any, prompt: Prompt, answer: str, *, max_length: int) -> Tensor:
    """Log-probability of an answer, one sequence at a time, from full logits."""
    turns = [{"role": m.role, "content": m.content} for m in prompt.messages]
    start = tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
    whole = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": answer}])["input_ids"][:max_length]
    ids = torch.tensor([whole])
    log_probs = model(ids).logits[0, :-1].log_softmax(-1)
    return log_probs[torch.arange(len(whole) - 1), ids[0, 1:]][len(start) - 1 :].sum()
