"""Whether a model gives the same log-probabilities where completions share their prompt's row."""

from typing import Any

import torch

from workbench.models.forward import collate, completion_logps
from workbench.models.tokens import Encoded

NEEDS_PLAIN_ROWS = ("sliding_window", "attention_chunk_size", "alibi", "keep_window_size", "index_topk")
"""Settings of a model that look at distances within a row: where one is set, a row holds one completion. A probe of a
few tokens would not see a window of thousands."""

ROUNDING_NATS = 1e-3
"""Largest difference of a log-probability of `PROBE` that is still rounding in float32."""

PROBE = (Encoded((1, 2, 3, 4), (5, 6, 7)), Encoded((1, 2, 3, 4), (8, 9)))


def needs_plain_rows(config: Any) -> bool:
    """Whether a model's settings say that distances within a row matter to it."""
    config = config.get_text_config(decoder=True)
    windows = any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ())
    return windows or any(getattr(config, name, None) for name in NEEDS_PLAIN_ROWS)


def shares_prompts(model: Any) -> bool:
    """Ask the model: by its settings, then by comparing both layouts on a few tokens.

    Architectures that ignore a four-dimensional mask or positions (state-space layers, learned window masks) answer
    differently and so are found without being listed.
    """
    if needs_plain_rows(model.config):
        return False
    was_training = model.training
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        model.eval()
        try:
            shared, plain = (completion_logps(model, collate(PROBE, pad_id=0, share=s)) for s in (True, False))
        except (RuntimeError, ValueError, TypeError, IndexError):
            return False  # the model takes no such mask
        finally:
            model.train(was_training)
    return bool((shared - plain).abs().max() <= ROUNDING_NATS)
