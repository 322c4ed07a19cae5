"""How long the matrix products of a training step take alone, at the rate this machine has for their shapes.

Counted is what the step's batches need, laid out as it lays them out: the base's matrices forward and back to their input,
the adapter's forward and back to its weights too, attention only between positions that see each other.
"""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from preference_data.versions import load_version
from workbench.config import NumericsSettings
from workbench.models.flex import Piece
from workbench.models.forward import Rows
from workbench.models.load import load_full, load_tokenizer
from workbench.models.numerics import apply_numerics
from workbench.models.packed import Packed, can_pack
from workbench.models.score_table import read_table
from workbench.models.tokens import pad_id
from workbench.tasks import TrainJob
from workbench.training.batches import PairCollator, as_columns, batch_of, in_order, train_rows
from workbench.training.optimise import expected_steps

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


class Counted(NamedTuple):
    """What passes compute.

    Attributes:
        tokens: of their rows; what all prompts of a row begin with is there once.
        answers: tokens of answers, each predicted by the LM head.
        seen: how many positions see how many, in all.
    """

    tokens: int
    answers: int
    seen: float


def products_s(job: TrainJob, tokens_per_pass: int) -> Alone:
    """Of an adapter on all layers, activations kept; on average over the steps of a job but its first.

    Args:
        job: of pairs, in packed rows.
        tokens_per_pass: most tokens of a forward pass, as the job told.
    """
    training, numerics = job.training, job.numerics
    passes, steps = timed_passes(job, tokens_per_pass)
    found = counted(passes)
    tokens, answers = round(found.tokens / steps), round(found.answers / steps)
    model = load_full(job.parent.path)
    head, config = model.get_output_embeddings(), model.config
    wanted: Counter[Product] = Counter()
    for module in model.modules():
        if module is head:
            wanted.update(_there_and_back(answers, module.in_features, module.out_features))
        elif isinstance(module, torch.nn.Linear):
            wanted.update(_there_and_back(tokens, module.in_features, module.out_features))
            wanted.update(_adapter(tokens, module.in_features, module.out_features, training.rank))
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = _attention(config.num_attention_heads, size)
    pieces = config.num_hidden_layers * found.seen / steps / PIECE**2
    with torch.inference_mode(), apply_numerics(numerics):
        ways = [(each, False) for each in (*wanted, *set(attention))] + [(each, True) for each in wanted if each.frozen]
        turns = [{way: _seconds(way[0], numerics, blocks=way[1]) for way in ways} for _ in range(TURNS)]
    seconds = {way: median(turn[way] for turn in turns) for way in ways}
    seen = pieces * sum(seconds[each, False] for each in attention)
    plain = sum(count * seconds[each, False] for each, count in wanted.items())
    blocks = sum(count * seconds[each, each.frozen] for each, count in wanted.items())
    return Alone(seen + plain, seen + blocks)


def timed_passes(job: TrainJob, tokens_per_pass: int) -> tuple[list[Rows], int]:
    """Rows of all forward passes of a job's optimizer steps but the first, which is not timed, either; and those steps."""
    training, tokenizer = job.training, load_tokenizer(job.parent.base_path)
    tables = {digest: read_table(Path(folder)) for digest, folder in job.tables.items()}
    rows = train_rows(
        list(load_version(Path(job.version.path)).pairs("train")),
        tokenizer,
        max_length=training.max_length,
        parent=tables[job.parent.digest],
        anchors=[(anchor, tables[anchor.policy.digest]) for anchor in job.anchors],
    )
    columns = as_columns(in_order(rows, epochs=training.epochs, seed=training.seed))
    lay_out = PairCollator(pad_id(tokenizer), layout="packed", tokens=tokens_per_pass)
    starts = range(training.batch_size * training.accumulation, len(columns), training.batch_size)
    batches = [lay_out(columns[start : start + training.batch_size]) for start in starts]
    passes = [batch_of(each).rows for batch in batches for each in batch["passes"]]
    return passes, expected_steps(len(columns), training.batch_size, training.accumulation) - 1


def counted(passes: Sequence[Rows]) -> Counted:
    """Count in packed rows."""
    spans = [Piece(*each) for rows in passes for each in rows.attention_mask[0, 0].tolist()]
    return Counted(
        sum(rows.input_ids.numel() for rows in passes),
        sum(len(rows.targets) for rows in passes),
        sum(_seen(each) for each in spans),
    )


def _seen(piece: Piece) -> float:
    """How many positions a piece's own see: its head, its prompt, and itself up to themselves."""
    own = piece.end - piece.start
    return own * (piece.head + piece.border - piece.prompt) + own * (own + 1) / 2


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
