"""`workbench bench curves`: how cost grows with pairs, shared prompts, completions and anchors, the worst case included.

Texts are made up of words, so that lengths are exact; the model is that of the demo, its weights and time are real.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch

from workbench import assembly
from workbench.bench.figures import Figure
from workbench.bench.speed import base_folder
from workbench.config import NumericsSettings, TrainingSettings
from workbench.models.forward import Layout, collate, completion_logps
from workbench.models.load import Family, save_adapter, trainable
from workbench.models.numerics import apply_numerics
from workbench.models.packed import hold_in_half
from workbench.models.sharing import layout_of
from workbench.models.tokens import Encoded
from workbench.tasks import PolicyRef

PAIR_TOKENS = 512
"""Of a prompt and one answer together."""
SHARES = (0.0, 0.25, 0.5, 0.75, 0.9)
COMPLETIONS, ANCHORS, PAIRS = (2, 4, 8), (2, 4, 8), (2, 4, 16)
TINY = 1e-3
"""Size of the entries of an adapter that was never trained."""

Tell = Callable[[str], None]


def _settings() -> NumericsSettings:
    return assembly.fastest(2)


def _base() -> PolicyRef:
    folder = str(base_folder())
    return PolicyRef("0" * 64, "full", folder, "0" * 64, folder, "")


def _examples(prompts: int, prompt: int, answers: int, answer: int) -> list[Encoded]:
    """Every prompt with so many answers; no two begin alike."""
    texts = [tuple(range(100 + k, 100 + k + prompt)) for k in range(prompts)]
    return [Encoded(p, tuple(range(5000 + k, 5000 + k + answer))) for p, k in product(texts, range(answers))]


def _interleaved(sides: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Median seconds of each, in turns, after one that is not counted."""
    spent: list[list[float]] = [[] for _ in sides]
    for turn in range(1 + repeats):
        for side, each in zip(sides, spent, strict=True):
            began = time.perf_counter()
            side()
            if turn:
                each.append(time.perf_counter() - began)
    return [median(each) for each in spent]


def _model(numerics: NumericsSettings) -> Any:
    model = trainable(_base(), TrainingSettings(), numerics)
    layout_of(model)
    if numerics.dtype == "bfloat16":
        hold_in_half(model)
    return model


def _step(model: Any, examples: Sequence[Encoded], layout: Layout) -> Callable[[], None]:
    rows = collate(examples, pad_id=0, layout=layout)

    def run() -> None:
        completion_logps(model, rows).sum().backward()
        model.zero_grad()

    return run


def _shares(tell: Tell, *, quick: bool) -> Iterator[Figure]:
    """Forward and back over two pairs, against a row for each answer, which nothing pads here."""
    numerics = _settings()
    with apply_numerics(numerics):
        model = _model(numerics)
        for share in SHARES:
            tell(f"prompts of {share:.0%}")
            prompt = max(1, round(share * PAIR_TOKENS))
            examples = _examples(2, prompt, 2, PAIR_TOKENS - prompt)
            packed, plain = _interleaved(
                [_step(model, examples, layout) for layout in ("packed", "plain")], 1 if quick else 5
            )
            tokens = (prompt + 2 * (PAIR_TOKENS - prompt)) / (2 * PAIR_TOKENS)
            yield Figure(f"time of a step over a row per answer, prompts {share:.0%} of the tokens", packed / plain, 1.05,
                         note=f"{tokens:.2f} of the tokens; {packed:.2f} against {plain:.2f} s")  # fmt: skip


def _pairs(tell: Tell, *, quick: bool) -> Iterator[Figure]:
    """Forward and back over more pairs at once, per pair, against one pair."""
    numerics = _settings()
    with apply_numerics(numerics):
        model = _model(numerics)
        tell("pairs at once")
        sides = [_step(model, _examples(count, 128, 2, 128), "packed") for count in (1, *PAIRS)]
        one, *more = _interleaved(sides, 1 if quick else 5)
    for count, seconds in zip(PAIRS, more, strict=True):
        yield Figure(f"time per pair of {count} pairs at once over one", seconds / count / one, 1.05,
                     note=f"{seconds / count:.3f} against {one:.3f} s")  # fmt: skip


def _score(family: Family, policies: Sequence[PolicyRef], examples: Sequence[Encoded]) -> Callable[[], None]:
    def run() -> None:
        for policy in policies:
            with family.using(policy) as model:
                completion_logps(model, family.collate(examples))

    return run


def _completions(tell: Tell, *, quick: bool) -> Iterator[Figure]:
    """Scoring more completions of a prompt of 256 tokens, per completion, against one."""
    numerics = _settings()
    family = Family(_base(), numerics)
    tell("completions per prompt")
    with apply_numerics(numerics):
        sides = [_score(family, [family.base], _examples(4, 256, count, 64)) for count in (1, *COMPLETIONS)]
        one, *more = _interleaved(sides, 1 if quick else 5)
    for count, seconds in zip(COMPLETIONS, more, strict=True):
        alone, shared = 256 + 64, (256 + count * 64) / count
        yield Figure(f"time per completion of {count} to a prompt over one", seconds / count / one, 1.05,
                     note=f"{shared / alone:.2f} of the tokens")  # fmt: skip


def _anchors(tell: Tell, *, quick: bool) -> Iterator[Figure]:
    """Scoring the same answers under more adapters over one loaded base, per adapter, against one."""
    numerics = _settings()
    family = Family(_base(), numerics)
    with tempfile.TemporaryDirectory() as folder, apply_numerics(numerics):
        policies: list[PolicyRef] = []
        for number in range(max(ANCHORS)):
            tell(f"adapter {number + 1} of {max(ANCHORS)}")
            policies.append(_adapter(Path(folder) / str(number), number, numerics))
        examples = _examples(4, 128, 2, 128)
        sides = [_score(family, policies[:count], examples) for count in (1, *ANCHORS)]
        one, *more = _interleaved(sides, 1 if quick else 5)
    for count, seconds in zip(ANCHORS, more, strict=True):
        yield Figure(f"time per anchor of {count} over one, scored over one base", seconds / count / one, 1.05,
                     note=f"{seconds / count:.2f} against {one:.2f} s")  # fmt: skip


def _adapter(folder: Path, seed: int, numerics: NumericsSettings) -> PolicyRef:
    model = trainable(_base(), TrainingSettings(seed=seed), numerics)
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=TINY)
    folder.mkdir()
    save_adapter(model, folder)
    return _base()._replace(digest=f"{seed + 1:064}", kind="adapter", path=str(folder))


PARTS = {
    "shares": _shares,
    "pairs": _pairs,
    "completions": _completions,
    "anchors": _anchors,
}
