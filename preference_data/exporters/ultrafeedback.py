"""UltraFeedback binarized; the strength of a preference is the distance of the scores."""

from typing import Any

from preference_data.exporters.exporter import Exporter, answer, chat, winner_first
from preference_data.records import Comparison, Judgement, Pairwise, Verdict


def _order(comparison: Comparison, judgement: Judgement) -> tuple[int, ...]:
    match judgement.opinion:
        case Pairwise(Verdict.TIE) if len(comparison.completions) == 2:
            return (0, 1)
        case _:
            return winner_first(comparison, judgement)


def _row(comparison: Comparison, judgement: Judgement, order: tuple[int, ...]) -> dict[str, Any]:
    assert isinstance(judgement.opinion, Pairwise)  # `_order` lets nothing else pass
    messages = comparison.prompt.messages
    asked = {"prompt": messages[0].content} if [message.role for message in messages] == ["user"] else {}
    better, worse = (chat(messages) + answer(comparison, k) for k in order)
    tied = judgement.opinion.verdict is Verdict.TIE
    return asked | {
        "chosen": better,
        "rejected": worse,
        "score_chosen": 0.0 if tied else float(judgement.opinion.strength or 1),
        "score_rejected": 0.0,
    }


ULTRAFEEDBACK = Exporter("ultrafeedback", _order, _row)
