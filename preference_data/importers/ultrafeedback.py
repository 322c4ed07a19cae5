"""UltraFeedback binarized: TRL's shape with `score_chosen` and `score_rejected`.

The rejected answer was drawn at random from the rest, so equal scores occur; they say that neither is better.
"""

from typing import Any

from preference_data.errors import RowRefused
from preference_data.importers.fields import compare, judge, opening, refused, rest, shared, side
from preference_data.importers.importer import Importer, Source
from preference_data.records import Pairwise, Verdict
from preference_data.store import Entry


def _sniff(row: dict[str, Any]) -> bool:
    return {"chosen", "rejected", "score_chosen", "score_rejected"} <= row.keys()


def _score(row: dict[str, Any], field: str) -> float:
    value = row.get(field)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise refused(field, value, "a number")
    return value


def convert(row: dict[str, Any], source: Source) -> list[Entry]:
    """`prompt`, `chosen` and `rejected` as message lists, and a score of each, kept in `extra`."""
    chosen, rejected = side(row.get("chosen"), "chosen"), side(row.get("rejected"), "rejected")
    stated = opening(row["prompt"], "prompt") if row.get("prompt") is not None else ()
    better, worse = _score(row, "score_chosen"), _score(row, "score_rejected")
    if better < worse:
        raise RowRefused(f"score_chosen {better} is below score_rejected {worse}; expected the reverse; drop the row")
    comparison = compare(source, shared(stated, chosen, rejected), (chosen.answer, rejected.answer))
    opinion = Pairwise(Verdict.TIE if better == worse else Verdict.FIRST)
    repeats = ("messages",) if row.get("messages") == row["chosen"] else ()
    extra = rest(row, "prompt", "chosen", "rejected", *repeats)
    return [Entry(comparison, (judge(source, comparison, opinion, extra=extra),))]


ULTRAFEEDBACK = Importer("ultrafeedback", _sniff, convert)
