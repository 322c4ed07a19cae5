"""What must be equal for two runs to give the same bits."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache

import torch

from workbench.config import NumericsSettings
from workbench.errors import ModelError

SCORER_VERSION = "rows-5"
"""Changes whenever the way log-probabilities are computed changes, so that older cached scores are not mixed in."""

LARGEST_KEPT = 2**25
"""Bytes: hidden states are kept, logits, of which there are few, go back."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Options of glibc's `mallopt`, as malloc.h numbers them."""


def numerics_key(settings: NumericsSettings) -> str:
    """Under what conditions a score was computed; part of its cache key. Thread count only moves rounding."""
    where = "" if settings.device == "cpu" else f"/{settings.device}"
    held = "" if settings.base == "whole" else f"/{settings.base}"
    return f"{settings.dtype}/sdpa/{SCORER_VERSION}{where}{held}"


@contextmanager
def apply_numerics(settings: NumericsSettings) -> Iterator[None]:
    """Set thread count and precision for a block, and put the thread count back afterwards.

    Raises:
        ModelError: the device asked for is not there.

    With `bfloat16` matrix products run in bfloat16 while weights, LoRA matrices and reductions stay in float32.
    """
    require_device(settings)
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        with precision(settings):
            yield
    finally:
        torch.set_num_threads(before)


def precision(settings: NumericsSettings) -> torch.autocast:
    """The precision of matrix products for a block, in the thread that enters it."""
    half = settings.dtype == "bfloat16"
    # Autocast would keep the first conversion of a trained weight until the block ends, whatever the optimizer does.
    return torch.autocast(device_type=settings.device, dtype=torch.bfloat16, enabled=half, cache_enabled=False)


def product_dtype(tensor: torch.Tensor) -> torch.dtype:
    """The precision in which matrix products with a tensor are computed here: autocast's, or its own."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


def require_device(settings: NumericsSettings) -> None:
    """Refuse settings of another machine.

    Raises:
        ModelError: there is no such device.
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "numerics.device = 'cuda', but torch finds no GPU here; install a torch built for CUDA, run where there is "
            "one, or set numerics.device = 'cpu'"
        )


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Have the C library keep blocks it would give back: fetching them again costs a tenth of a training step.

    Does nothing where the C library is not glibc.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    set_option(_M_MMAP_THRESHOLD, LARGEST_KEPT)
    set_option(_M_TRIM_THRESHOLD, 16 * LARGEST_KEPT)


def give_back_memory() -> None:
    """Give to the system what was freed: between the steps of a round blocks of other sizes are asked for.

    Does nothing for blocks in use, or, on CPU, where the C library is not glibc.
    """
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def tolerance(settings: NumericsSettings) -> float:
    """Largest difference between two computations of one sequence's log-probability that is still rounding, nats.

    Batch composition and padding change the order of sums: below 1e-3 in float32 for sequences of a thousand tokens.
    In bfloat16 each token's logit carries about three significant digits, and errors of some hundred tokens add up.
    """
    match settings.dtype:
        case "float32":
            return 1e-2
        case "bfloat16":
            return 2.0


def loss_tolerance(settings: NumericsSettings) -> float:
    """The same for the mean first loss of a round (`beta` times a difference of log-probabilities, averaged)."""
    match settings.dtype:
        case "float32":
            return 1e-3
        case "bfloat16":
            return 5e-2
