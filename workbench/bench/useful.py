"""How long the matrix products of a training step take alone, at the rate this machine has for their shapes.

Counted is what the model needs: the base's matrices forward and back to their input, the adapter's forward and back to
its weights too, attention only between positions that see each other.
"""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from preference_data.versions import load_version
from workbench.config import NumericsSettings, TrainingSettings
from workbench.models.load import load_full, load_tokenizer
from workbench.models.numerics import apply_numerics
from workbench.models.packed import Packed, can_pack
from workbench.models.tokens import EncodedPair, encode_pair
from workbench.tasks import PolicyRef, VersionRef

TIMED_S, TURNS = 0.2, 3
"""How long each product is timed in a turn, and how many turns there are: the machine's rate wanders within seconds."""
PIECE = 256
"""Positions of the attention that is timed."""


class Product(NamedTuple):
    """One matrix product, or `batch` of them at once: (rows, inner) times (inner, columns), the second maybe frozen."""

    rows: int
    inner: int
    columns: int
    batch: int = 1
    frozen: bool = False


class Alone(NamedTuple):
    """Seconds that the products of an optimizer step take alone.

    Attributes:
        plain: with matrices as they lie, as torch multiplies them for any model.
        blocks: with frozen matrices in the blocks that the step itself multiplies from, where the machine has such.
    """

    plain: float
    blocks: float


def products_s(policy: PolicyRef, version: VersionRef, training: TrainingSettings, numerics: NumericsSettings) -> Alone:
    """Of an adapter on all layers, activations kept."""
    tokenizer = load_tokenizer(policy.base_path)
    pairs = [
        found
        for pair in load_version(Path(version.path)).pairs("train")
        if (found := encode_pair(tokenizer, pair, max_length=training.max_length))
    ]
    share = training.batch_size * training.accumulation / len(pairs)
    answers = sum(len(side.completion) for pair in pairs for side in pair)
    tokens = round(share * (answers + sum(len(pair.chosen.prompt) for pair in pairs)))
    model = load_full(policy.path)
    head, config = model.get_output_embeddings(), model.config
    wanted: Counter[Product] = Counter()
    for module in model.modules():
        if module is head:
            wanted.update(_there_and_back(round(share * answers), module.in_features, module.out_features))
        elif isinstance(module, torch.nn.Linear):
            wanted.update(_there_and_back(tokens, module.in_features, module.out_features))
            wanted.update(_adapter(tokens, module.in_features, module.out_features, training.rank))
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = _attention(config.num_attention_heads, size)
    pieces = config.num_hidden_layers * share * sum(_seen(pair) for pair in pairs) / PIECE**2
    with torch.inference_mode(), apply_numerics(numerics):
        ways = [(each, False) for each in (*wanted, *set(attention))] + [(each, True) for each in wanted if each.frozen]
        turns = [{way: _seconds(way[0], numerics, blocks=way[1]) for way in ways} for _ in range(TURNS)]
    seconds = {way: median(turn[way] for turn in turns) for way in ways}
    seen = pieces * sum(seconds[each, False] for each in attention)
    plain = sum(count * seconds[each, False] for each, count in wanted.items())
    blocks = sum(count * seconds[each, each.frozen] for each, count in wanted.items())
    return Alone(seen + plain, seen + blocks)


def _there_and_back(tokens: int, inner: int, out: int) -> Sequence[Product]:
    return Product(tokens, inner, out, frozen=True), Product(tokens, out, inner, frozen=True)


def _adapter(tokens: int, inner: int, out: int, rank: int) -> Sequence[Product]:
    there = (Product(tokens, inner, rank), Product(tokens, rank, out))
    to_input = (Product(tokens, out, rank), Product(tokens, rank, inner))
    return *there, *to_input, Product(rank, tokens, inner), Product(out, tokens, rank)


def _attention(heads: int, size: int) -> Sequence[Product]:
    """Of a square piece: products, sums of values, and the gradients of both factors of each."""
    towards, from_ = Product(PIECE, size, PIECE, heads), Product(PIECE, PIECE, size, heads)
    return towards, from_, towards, from_, from_, from_


def _seen(pair: EncodedPair) -> float:
    """How many positions see how many, in all."""
    prompt = len(pair.chosen.prompt)
    answers = [len(side.completion) for side in pair]
    return prompt * (prompt + 1) / 2 + sum(each * prompt + each * (each + 1) / 2 for each in answers)


def _seconds(product: Product, numerics: NumericsSettings, *, blocks: bool = False) -> float:
    dtype = torch.bfloat16 if numerics.dtype == "bfloat16" else torch.float32
    left = torch.ones(product.batch, product.rows, product.inner, dtype=dtype)
    right = torch.ones(product.batch, product.columns, product.inner, dtype=dtype).transpose(1, 2)
    multiply = torch.bmm
    if product.batch == 1:
        left, right, multiply = left[0], right[0], torch.mm
    if blocks and dtype == torch.bfloat16 and can_pack((product.columns, product.inner)):
        packed = Packed(right.t().contiguous(), None)
        multiply = lambda rows, _: packed.there(rows)  # noqa: E731 - stands in for a function of torch
    multiply(left, right)
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < TIMED_S:
        multiply(left, right)
        count += 1
    return elapsed / count
