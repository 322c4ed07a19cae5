"""Bits per byte of plain English text: a capability that needs no instruction and no answer key.

The text is the Python language reference as the interpreter ships it, so nothing has to be fetched. It differs
between Python releases; the suite's name carries a hash of the text, so that numbers of different texts never meet.
"""

import hashlib
import math
from collections.abc import Iterator
from pydoc_data.topics import topics

from workbench.evaluation.context import Context
from workbench.models.forward import completion_logps
from workbench.models.tokens import Encoded, beginning
from workbench.tasks import Item

BYTES = 51_000
CHUNK_BYTES = 1_000


def text(context: Context) -> Iterator[Item]:
    """`bits` and `bytes` of every chunk; their sums' quotient is bits per byte."""
    chunks = reference_text()
    name = f"text/{hashlib.sha256(''.join(chunks).encode()).hexdigest()[:12]}"
    tokenizer = context.family.tokenizer
    examples: list[Encoded] = []
    for chunk in chunks:
        ids = [*beginning(tokenizer), *tokenizer(chunk, add_special_tokens=False)["input_ids"]]
        # The first token has nothing before it to be predicted from; it is context, not completion.
        examples.append(Encoded((ids[0],), tuple(ids[1:])))
    bits: dict[int, float] = {}
    with context.family.using(context.policy) as model:
        for batch in context.family.batches(examples, size=context.settings.batch_size):
            rows = context.family.collate([examples[k] for k in batch])
            found = completion_logps(model, rows).tolist()
            bits |= {k: -logp / math.log(2) for k, logp in zip(batch, found, strict=True)}
            context.tell(len(bits), len(examples))
    for k, chunk in enumerate(chunks):
        for metric, value in (("bits", bits[k]), ("bytes", float(len(chunk.encode())))):
            yield Item(name, f"{k:04d}", metric, value, f"{k:04d}", {}, {})


def reference_text() -> list[str]:
    """About 51 kB of the language reference in chunks of about 1 kB, topics in alphabetical order."""
    whole = "\n".join(topics[name] for name in sorted(topics))[:BYTES]
    return [whole[i : i + CHUNK_BYTES] for i in range(0, len(whole), CHUNK_BYTES)]
