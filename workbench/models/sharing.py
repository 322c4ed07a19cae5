"""In which layouts a model gives a completion the log-probability it has alone."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel

from workbench.models.attention import use_pieces
from workbench.models.forward import Layout, collate, completion_logps
from workbench.models.head import DirectHead
from workbench.models.norms import frozen_norms, lower, shown_to_products_only
from workbench.models.rotary import use_own_rotation
from workbench.models.tokens import Encoded

NEEDS_PLAIN_ROWS = ("sliding_window", "attention_chunk_size", "alibi", "keep_window_size", "index_topk")
"""Settings of a model that look at distances within a row: where one is set, a row holds one completion. A probe of a
few tokens would not see a window of thousands."""

ROUNDING_NATS, ROUNDING_SHARE = 1e-3, 1e-4
"""Largest difference of a log-probability of `PROBE` that is still rounding in float32: so many nats, and so much of it."""

PROBE = (Encoded((1, 2, 3, 4), (5, 6, 7)), Encoded((1, 2, 3, 4), (8, 9)), Encoded((3, 1), (2,)))


def needs_plain_rows(config: Any) -> bool:
    """Whether a model's settings say that distances within a row matter to it."""
    config = config.get_text_config(decoder=True)
    windows = any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ())
    return windows or any(getattr(config, name, None) for name in NEEDS_PLAIN_ROWS)


def layout_of(model: Any) -> Layout:
    """Ask the model for the cheapest layout it computes rightly: by its settings, then on a few tokens.

    Architectures that ignore a four-dimensional mask or positions (state-space layers, learned window masks) answer
    differently and so are found without being listed. A model that lets others compute its attention is set to
    attend by pieces, which is `sdpa` for every other layout. An adapter is left out of the question: what it was taught
    can make a policy so steep that rounding looks like another answer.
    """
    if isinstance(model, PeftModel):
        with model.disable_adapter():
            return layout_of(model.get_base_model())
    alone = _probed(model, "plain")
    use_direct_head(model, alone)
    use_low_norms(model, alone)
    use_own_rotation(model)
    if needs_plain_rows(model.config):
        return "plain"
    if use_pieces(model) and _same(_tried(model, "packed"), alone):
        return "packed"
    return "shared" if _same(_tried(model, "shared"), alone) else "plain"


def use_direct_head(model: Any, logps: torch.Tensor) -> None:
    """Have log-probabilities computed from the LM head directly, if the model adds nothing to what it says."""
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear:
        return
    head.__class__ = DirectHead
    if not _same(_tried(model, "plain"), logps):
        head.__class__ = torch.nn.Linear


def use_low_norms(model: Any, logps: torch.Tensor) -> None:
    """Have norms answer in the precision of products, if the model hands what they say to products and to nothing else."""
    for norms in frozen_norms(model):
        with shown_to_products_only(model, norms):
            found = _tried(model, "plain")
        if _same(found, logps):
            lower(norms)


def _tried(model: Any, layout: Layout) -> torch.Tensor | None:
    """Log-probabilities of the probe, None where the model takes no such mask."""
    try:
        return _probed(model, layout)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return None


def _probed(model: Any, layout: Layout) -> torch.Tensor:
    was_training = model.training
    with torch.no_grad(), torch.autocast(model.device.type, enabled=False), _in_full(model):
        model.eval()
        try:
            return completion_logps(model, collate(PROBE, pad_id=0, layout=layout)).cpu()
        finally:
            model.train(was_training)


@contextmanager
def _in_full(model: Any) -> Generator[None]:
    """Layers in four bits multiply in a precision of their own, which would round more than the probe allows."""
    own = [(layer, layer.compute_dtype) for layer in model.modules() if hasattr(layer, "compute_dtype")]
    try:
        for layer, _ in own:
            layer.compute_dtype = torch.float32
        yield
    finally:
        for layer, dtype in own:
            layer.compute_dtype = dtype


def _same(found: torch.Tensor | None, alone: torch.Tensor) -> bool:
    return found is not None and torch.allclose(found, alone, rtol=ROUNDING_SHARE, atol=ROUNDING_NATS)
