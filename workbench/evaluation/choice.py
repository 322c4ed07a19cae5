"""Multiple choice by log-probability: which option does the policy find likeliest after the question?"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from preference_data.samples import ChoiceItem, choice_items
from workbench.errors import ConfigError
from workbench.evaluation.context import Context, Suite
from workbench.models.forward import completion_logps
from workbench.models.tokens import encode_text
from workbench.objects import entry
from workbench.tasks import FILE, HASH, Item, suite_label

BATCH_FACTOR = 16
"""Options are short, so more of them fit into a batch than answers do; small matrix products are slow."""


def choice(context: Context) -> Iterator[Item]:
    """The project's own questions; see `chosen`."""
    return chosen(context, "choice", choice_items())


def choice_of(name: str) -> Suite:
    """A suite of questions from a file, as a plan names it.

    The file is JSONL; each line has `question`, `options`, the index of the right one as `answer`, and maybe a `domain`.

    Raises:
        ConfigError: there is no such file, it has changed since, or a line is no question; names file and line.
    """
    path, _, held = name.removeprefix(FILE).partition("#")
    items = _read(Path(path))
    if entry(Path(path)).sha256[:HASH] != held:
        raise ConfigError(f"{path}: changed since the round was planned; plan it again, or restore the file")
    return lambda context: chosen(context, suite_label(name), items)


def _read(path: Path) -> list[ChoiceItem]:
    found: list[ChoiceItem] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"evaluation.suites: {path}: {error.strerror}; expected a file of questions") from error
    for number, line in enumerate(lines, 1):
        try:
            row: Any = json.loads(line)
            options = tuple(str(option) for option in row["options"])
            options[int(row["answer"])]
            found.append(ChoiceItem(str(row["question"]), options, int(row["answer"]), str(row.get("domain", ""))))
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ConfigError(
                f'{path}, line {number}: no question ({error}); expected {{"question": "…", "options": ["…", "…"], "answer": 0}}'
            ) from error
    return found


def chosen(context: Context, suite: str, items: Sequence[ChoiceItem]) -> Iterator[Item]:
    """`correct` is 1 where the right option has the highest summed log-probability, else 0.

    Items are plain text without chat template; options follow the question directly.
    """
    tokenizer = context.family.tokenizer
    encoded = [(i, encode_text(tokenizer, q.question, " " + o)) for i, q in enumerate(items) for o in q.options]
    scores: dict[int, float] = {}
    examples = [e for _, e in encoded]
    with context.family.using(context.policy) as model:
        for batch in context.family.batches(examples, size=BATCH_FACTOR * context.settings.batch_size):
            rows = context.family.collate([examples[k] for k in batch])
            scores |= dict(zip(batch, completion_logps(model, rows).tolist(), strict=True))
            context.tell(len(scores), len(examples))
    by_item: dict[int, list[float]] = {}
    for k, (i, _) in enumerate(encoded):
        by_item.setdefault(i, []).append(scores[k])
    for i, question in enumerate(items):
        best = max(range(len(by_item[i])), key=by_item[i].__getitem__)
        yield Item(
            suite=suite,
            item=question.key,
            metric="correct",
            value=float(best == question.answer),
            group=question.key,
            slices={"domain": question.domain},
            detail={"question": question.question, "chose": question.options[best]},
        )
