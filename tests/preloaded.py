"""What the fork server of the tests loads once, so that a process to be killed costs a fork and not the start of torch."""

import gc
from importlib import import_module

for name in ("pytest", "tests.rounds_kit", "tests.small_round", "tests.tiny_model", "workbench.acting",
             "workbench.evaluation.evaluate", "workbench.scoring.score", "workbench.training.optimise",
             "workbench.training.reward_model"):  # fmt: skip
    import_module(name)

gc.freeze()  # their full collections need not look through it
