"""What a package outside the project brings: two losses, a suite, an importer. `entry_points.txt` registers them."""

from preference_data.importers.fields import compare, judge, text
from preference_data.importers.importer import Importer
from preference_data.records import Pairwise, Prompt, Verdict
from preference_data.store import Entry
from workbench.maths.preference_losses import pair_logit
from workbench.tasks import Item


def squared(policy, reference, *, beta, label_smoothing, lengths):
    """(1 - h)^2 with DPO's logit: a loss of the margin alone, so the geometric reference is exact for it."""
    return (1 - pair_logit(policy, reference, beta=beta)) ** 2


squared.exact = True


def lengthy(policy, reference, *, beta, label_smoothing, lengths):
    """A loss that uses lengths and does not claim to be exact."""
    return squared(policy, reference, beta=beta, label_smoothing=label_smoothing, lengths=lengths) / lengths.chosen


def greeting(context):
    """One item: how many tokens the tokenizer makes of a greeting."""
    count = len(context.family.tokenizer("Hello!")["input_ids"])
    yield Item("greeting", "hello", "tokens", float(count), "hello", {}, {})


def _is_shouted(row):
    return {"ASK", "GOOD", "BAD"} <= row.keys()


def _convert(row, source):
    comparison = compare(source, Prompt.of(text(row["ASK"], "ASK")), [row["GOOD"], row["BAD"]])
    return [Entry(comparison, (judge(source, comparison, Pairwise(Verdict.FIRST)),))]


SHOUTED = Importer("shouted", _is_shouted, _convert)
