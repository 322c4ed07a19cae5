"""Multiple choice by log-probability: which option does the policy find likeliest after the question?"""

from collections.abc import Iterator

from preference_data.samples import choice_items
from workbench.evaluation.context import Context
from workbench.models.forward import completion_logps
from workbench.models.tokens import encode_text
from workbench.tasks import Item

BATCH_FACTOR = 16
"""Options are short, so more of them fit into a batch than answers do; small matrix products are slow."""


def choice(context: Context) -> Iterator[Item]:
    """`correct` is 1 where the right option has the highest summed log-probability, else 0.

    Items are plain text without chat template; options follow the question directly.
    """
    items = choice_items()
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
            suite="choice",
            item=question.key,
            metric="correct",
            value=float(best == question.answer),
            group=question.key,
            slices={"domain": question.domain},
            detail={"question": question.question, "chose": question.options[best]},
        )
