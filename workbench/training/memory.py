"""What of a batch fits into memory at once, asked of the model and of the machine.

Computing activations again on the way back gives the same bits and costs a forward pass, so it comes first. A batch in
several passes gives the same gradient up to rounding, so it comes second.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from workbench.models.forward import Layout, collate, completion_logps
from workbench.models.head import DirectHead
from workbench.models.numerics import product_dtype
from workbench.models.tokens import Encoded

USED = 0.7
"""Share of the free memory that activations may take; what a step needs for a moment comes on top."""

STATES_BYTES = 12
"""For each number that is trained: its gradient and Adam's two moments, in float32."""

PROBE_TOKENS = 64, 128
"""Of the prompt and of each of the two answers whose activations are counted, twice."""


class Kept(NamedTuple):
    """Bytes that one pass keeps for its way back: for each of its tokens, and whatever their number."""

    per_token: float
    always: float


class Fit(NamedTuple):
    """How a batch is computed.

    Attributes:
        tokens: most tokens of one pass, padding included.
        recompute: whether activations are computed again on the way back.
    """

    tokens: int
    recompute: bool


def fit(model: Any, batches: Sequence[int], *, layout: Layout, free: int, others: int = 0) -> Fit:
    """Keep activations if the largest batch fits, else compute them again, else split batches, too.

    Leaves the model set to what was decided.

    Args:
        model: about to be trained, in the precision it will be.
        batches: tokens of each batch, padding included.
        layout: of its rows.
        free: bytes that the process may still take.
        others: policies whose KL over the vocabulary is part of the loss.
    """
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    room = USED * (free - STATES_BYTES * trained)
    kept, logits = kept_of(model, layout), others * logits_kept(model)
    fits = _tokens(room, kept.always, kept.per_token + logits)
    if max(batches) <= fits or not model.supports_gradient_checkpointing:
        return Fit(fits, recompute=False)
    recompute(model)
    # One layer at a time is computed again.
    layers = model.config.get_text_config(decoder=True).num_hidden_layers
    less = kept_of(model, layout)
    return Fit(_tokens(room, less.always, less.per_token + kept.per_token / layers + logits), recompute=True)


def logits_kept(model: Any) -> int:
    """Bytes that a KL to another policy keeps for a token: its logits, where they cannot be made of states on the way back."""
    head = model.get_output_embeddings()
    if not isinstance(head, DirectHead):
        return head.weight.shape[0] * torch.float32.itemsize
    trained = any(p.requires_grad for p in head.parameters())
    return head.weight.shape[0] * product_dtype(head.weight).itemsize if trained else 0


def recompute(model: Any) -> None:
    """Have a model compute activations again on the way back instead of keeping them."""
    model.activation_checkpointing_enable({"use_reentrant": False})


def _tokens(room: float, always: float, per_token: float) -> int:
    return max(1, int((room - always) / per_token))


def kept_of(model: Any, layout: Layout) -> Kept:
    """What a pass keeps, counted where autograd saves it."""
    (few, less), (many, more) = (_probed(model, layout, each) for each in PROBE_TOKENS)
    per_token = (more - less) / (many - few)
    return Kept(per_token, max(0.0, less - per_token * few))


def _probed(model: Any, layout: Layout, length: int) -> tuple[int, int]:
    """Tokens of a pass and bytes it keeps."""
    words = model.config.get_text_config(decoder=True).vocab_size
    ids = tuple(i % words for i in range(1, 1 + length))
    rows = collate([Encoded(ids, ids), Encoded(ids, ids[::-1])], pad_id=0, layout=layout)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an output that is kept with its own way back would never be freed

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        loss = completion_logps(model, rows).sum()
    del loss
    return rows.input_ids.numel(), sum(kept.values())
