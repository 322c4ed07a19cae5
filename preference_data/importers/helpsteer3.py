"""HelpSteer3 preference: `context`, two responses, an overall score and each annotator's own, -3 (first) to 3."""

from dataclasses import replace
from typing import Any, cast

from preference_data.importers.fields import compare, integer, judge, opening, refused, rest, text
from preference_data.importers.importer import Importer, Source
from preference_data.records import Comparison, Judgement, Pairwise, Prompt, Verdict
from preference_data.store import Entry

SLICES = ("domain", "language")


def _sniff(row: dict[str, Any]) -> bool:
    return {"context", "response1", "response2", "overall_preference"} <= row.keys()


def _opinion(value: object, field: str) -> Pairwise:
    score = integer(value, field, low=-3, high=3)
    if score == 0:
        return Pairwise(Verdict.TIE)
    return Pairwise(Verdict.FIRST if score < 0 else Verdict.SECOND, abs(score))


def convert(row: dict[str, Any], source: Source) -> list[Entry]:
    """One judgement per annotator with their reasoning; the overall score alone where they are not listed."""
    answers = [text(row.get(name), name) for name in ("response1", "response2")]
    slices = {name: text(row[name], name) for name in SLICES if row.get(name) is not None}
    comparison = compare(source, Prompt(opening(row.get("context"), "context")), answers, slices=slices)
    overall = _opinion(row.get("overall_preference"), "overall_preference")
    extra = rest(row, "context", "response1", "response2", *SLICES)
    extra.pop("individual_preference", None)
    own: object = row.get("individual_preference") or []
    if not isinstance(own, list):
        raise refused("individual_preference", own, "a list of scores")
    if not own:
        extra.pop("overall_preference")
        return [Entry(comparison, (judge(source, comparison, overall, extra=extra),))]
    each = [_own(source, comparison, i, said) for i, said in enumerate(cast("list[object]", own))]
    return [Entry(comparison, tuple(replace(one, extra=extra | dict(one.extra)) for one in each))]


def _own(source: Source, comparison: Comparison, i: int, said: object) -> Judgement:
    field = f"individual_preference[{i}]"
    if not isinstance(said, dict):
        raise refused(field, said, "an object with a score")
    own = cast("dict[str, Any]", said)
    reasoning = own.get("reasoning")
    return judge(
        source,
        comparison,
        _opinion(own.get("score"), f"{field}.score"),
        annotator=f"{source.annotator}:{i + 1}",
        rationale=reasoning if isinstance(reasoning, str) else "",
        extra=rest(own, "score", "reasoning"),
    )


HELPSTEER3 = Importer("helpsteer3", _sniff, convert)
