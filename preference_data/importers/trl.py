"""TRL: preference data with explicit or implicit prompt, and unpaired data, plain or conversational.

Shapes: https://huggingface.co/docs/trl/dataset_formats. Fields TRL does not know stay in the judgement's `extra`.
"""

from itertools import zip_longest
from typing import Any

from preference_data.errors import RowRefused
from preference_data.importers.fields import Side, compare, flag, judge, opening, rest, shared, side
from preference_data.importers.importer import Importer, Source
from preference_data.records import Message, Pairwise, Prompt, Thumb, Verdict
from preference_data.store import Entry


def _is_preference(row: dict[str, Any]) -> bool:
    if not {"chosen", "rejected"} <= row.keys():
        return False
    further = [value for name, value in row.items() if name not in {"chosen", "rejected"}]
    # Texts without a prompt begin with it, unless another field holds it under a name we do not know.
    whole = not any(isinstance(value, str | list | dict) for value in further)
    return "prompt" in row or whole or isinstance(row["chosen"], list)


def _is_unpaired(row: dict[str, Any]) -> bool:
    return {"prompt", "completion", "label"} <= row.keys()


def preference(row: dict[str, Any], source: Source) -> list[Entry]:
    """`prompt`, `chosen`, `rejected`; without `prompt` it is what both sides begin with."""
    chosen, rejected = side(row.get("chosen"), "chosen"), side(row.get("rejected"), "rejected")
    stated = opening(row["prompt"], "prompt") if row.get("prompt") is not None else ()
    if not stated and not chosen.before and not rejected.before:
        stated, chosen, rejected = split_texts(chosen.answer, rejected.answer)
    comparison = compare(source, shared(stated, chosen, rejected), (chosen.answer, rejected.answer))
    extra = rest(row, "prompt", "chosen", "rejected")
    return [Entry(comparison, (judge(source, comparison, Pairwise(Verdict.FIRST), extra=extra),))]


def split_texts(chosen: str, rejected: str) -> tuple[tuple[Message, ...], Side, Side]:
    """Whole texts split where they part, as `trl.data_utils.extract_prompt` does; a blank goes to the answers.

    Raises:
        RowRefused: the texts are equal, share no beginning, or one ends where they part.
    """
    if chosen == rejected:
        raise RowRefused("chosen and rejected are the same text; expected two answers; drop the row")
    parted = (i for i, (a, b) in enumerate(zip_longest(chosen, rejected)) if a != b)
    start = chosen[: next(parted)].removesuffix(" ")
    if not start.strip():
        raise RowRefused("prompts differ: chosen and rejected share no beginning; add a prompt field or drop the row")
    after = len(start)
    better, worse = side(chosen[after:], "chosen after the prompt"), side(rejected[after:], "rejected after the prompt")
    return (Message("user", start),), better, worse


def unpaired(row: dict[str, Any], source: Source) -> list[Entry]:
    """`prompt`, `completion`, `label`: a thumb."""
    completion = side(row.get("completion"), "completion")
    stated = opening(row.get("prompt"), "prompt")
    comparison = compare(source, Prompt(stated + completion.before), (completion.answer,))
    opinion = Thumb(flag(row.get("label"), "label"))
    extra = rest(row, "prompt", "completion", "label")
    return [Entry(comparison, (judge(source, comparison, opinion, extra=extra),))]


PREFERENCE = Importer("trl-preference", _is_preference, preference)
UNPAIRED = Importer("trl-unpaired", _is_unpaired, unpaired)
