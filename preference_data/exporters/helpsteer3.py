"""HelpSteer3 preference: scores from -3, the first much better, to 3."""

from typing import Any

from preference_data.exporters.exporter import Exporter, chat
from preference_data.importers.helpsteer3 import SLICES
from preference_data.records import Comparison, Judgement, Pairwise, Verdict


def _order(comparison: Comparison, judgement: Judgement) -> tuple[int, ...]:
    return (0, 1) if len(comparison.completions) == 2 and _score(judgement) is not None else ()


def _score(judgement: Judgement) -> int | None:
    match judgement.opinion:
        case Pairwise(Verdict.TIE):
            return 0
        case Pairwise(Verdict.FIRST, strength):
            return -(strength or 1)
        case Pairwise(Verdict.SECOND, strength):
            return strength or 1
        case _:
            return None


def _row(comparison: Comparison, judgement: Judgement, order: tuple[int, ...]) -> dict[str, Any]:
    return {
        **{name: comparison.slices[name] for name in SLICES if name in comparison.slices},
        "context": chat(comparison.prompt.messages),
        **{f"response{place}": comparison.completions[k].text for place, k in enumerate(order, start=1)},
        "overall_preference": _score(judgement),
    }


HELPSTEER3 = Exporter("helpsteer3", _order, _row)
