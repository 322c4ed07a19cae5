"""How fast this machine multiplies. Imports torch and no more: `workbench init` asks."""

import time

import torch

from workbench.config import NumericsSettings
from workbench.models.numerics import apply_numerics, keep_freed_memory

TURNS, TURN_S = 6, 0.05
"""Turns in which matrix products are timed, and the seconds of each. The fastest counts: in a new process the first turns
wait for threads and for instructions that are compiled when first used, and any turn may meet other work."""

ROWS, WIDTH = 1024, 512
"""Shape of the products: a batch of tokens by the width of a small model."""


def flops_per_s(numerics: NumericsSettings) -> float:
    """Floating point operations per second in matrix products, at a precision and thread count."""
    (fastest_turn,) = _fastest_turns(numerics)
    return fastest_turn * 2 * ROWS * WIDTH * 4 * WIDTH


def _fastest_turns(*every: NumericsSettings) -> list[float]:
    """Products per second of each in its fastest turn. They take turns, so that what else the machine does meets all alike."""
    keep_freed_memory()  # as where models are loaded: else what is timed is fresh pages for each product
    turns = [[_products_per_s(one) for one in every] for _ in range(TURNS)]
    return [max(each) for each in zip(*turns, strict=True)]


def _products_per_s(numerics: NumericsSettings) -> float:
    with torch.inference_mode(), apply_numerics(numerics):
        a, b = (torch.ones(shape, device=numerics.device) for shape in ((ROWS, WIDTH), (WIDTH, 4 * WIDTH)))
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
    in_single, in_half = _fastest_turns(single, half)
    return half if in_half > WORTH_IT * in_single else single
