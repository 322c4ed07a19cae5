"""Chatbot Arena votes."""

from typing import Any

from preference_data.exporters.exporter import Exporter, answer, chat
from preference_data.importers.arena import WINNERS
from preference_data.records import Comparison, Imported, Judgement, Origin, Pairwise, Sampled

_NAMES = {verdict: name for name, verdict in WINNERS.items()}


def _order(comparison: Comparison, judgement: Judgement) -> tuple[int, ...]:
    match judgement.opinion:
        case Pairwise(verdict) if verdict in _NAMES and len(comparison.completions) == 2:
            return (0, 1)
        case _:
            return ()


def _row(comparison: Comparison, judgement: Judgement, order: tuple[int, ...]) -> dict[str, Any]:
    assert isinstance(judgement.opinion, Pairwise)  # `_order` lets nothing else pass
    prompt = chat(comparison.prompt.messages)
    models = [_model(comparison.completions[k].origin) or f"unnamed {'ab'[k]}" for k in order]
    language = comparison.slices.get("language")
    return {
        "model_a": models[0],
        "model_b": models[1],
        "winner": _NAMES[judgement.opinion.verdict],
        "judge": judgement.annotator,
        "conversation_a": prompt + answer(comparison, 0),
        "conversation_b": prompt + answer(comparison, 1),
    } | ({"language": language} if language else {})


def _model(origin: Origin) -> str:
    return origin.policy if isinstance(origin, Imported | Sampled) else ""


ARENA = Exporter("arena", _order, _row)
