"""The compare page: two policies on the same prompts, what people preferred of them, and all policies ranked."""

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field

from preference_data.battles import Battle, Fought, battles, fought
from preference_data.machines import is_machine
from preference_data.store import Store
from ui.arena import Arena
from ui.shown import Lead, page
from workbench.drift.ranking import Decided, Ranking, rank
from workbench.drift.uncertainty import Estimate, format_estimate, share
from workbench.errors import PolicyError
from workbench.policies.records import PolicyRecord
from workbench.reports.charts import Bar, rows
from workbench.views.inspection import Inspection
from workbench.views.rows import ANSWERS, Found, Row, Wanted, find_rows

AT_ONCE = 20
KEPT = ("first", "second", "suite", "sort", "start")
Texts = tuple[str, str, str]
"""A prompt, the first policy's answer and the second's."""


class Say(BaseModel):
    """A prompt for two policies."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=1, max_length=20_000)
    first: str = Field(max_length=64)
    second: str = Field(max_length=64)


def add_compare(app: FastAPI, inspection: Inspection, store: Store, arena: Arena | None) -> None:
    """Add the compare page and the file it gives to LLM Comparator."""

    @app.get("/compare")
    def show(request: Request, _: Lead) -> HTMLResponse:
        asked = {name: request.query_params.get(name, "")[:500] for name in KEPT}
        first, second, suite, found = _pair(inspection, asked)
        everything, names = list(battles(store)), inspection.names()
        people = [each for each in everything if not each.machine]
        return page(
            "compare.html", first=first, second=second, suite=suite, found=found, asked=asked, names=names,
            policies=list(reversed(inspection.places.registry.policies())),
            suites=_suites(inspection, first, second), step=AT_ONCE, start=_start(asked), arena=arena is not None,
            rate=_preferred(everything, first.digest, second.digest) if first and second else "",
            rankings=_rankings(people, names), battles=len(people), machines=len(everything) - len(people),
        )  # fmt: skip

    if arena is not None:

        @app.post("/compare/say")
        async def say(asked: Say, _: Lead) -> dict[str, str]:
            first, second = await arena.say((asked.first, asked.second), asked.prompt)
            return {"first": first, "second": second}

    @app.get("/compare/comparator.json")
    def comparator(request: Request, _: Lead) -> Response:
        asked = {name: request.query_params.get(name, "")[:500] for name in KEPT}
        first, second, suite, found = _pair(inspection, asked, count=100_000)
        if first is None or second is None or found is None or not suite.startswith(ANSWERS):
            raise HTTPException(
                404, "nothing to compare; choose two policies that answered the same prompts, and their answers"
            )
        body = json.dumps(llm_comparator(found.rows, (first, second), suite, fought(store)), ensure_ascii=False)
        headers = {"content-disposition": 'attachment; filename="comparator.json"'}
        return Response(body, media_type="application/json", headers=headers)


def _preferred(everything: Sequence[Battle], first: str, second: str) -> str:
    """How often people preferred the first policy to the second, and how many judgements of machines that leaves out."""
    own = [each for each in everything if {each.first, each.second} == {first, second}]
    people = [each for each in own if not each.machine]
    rate, machines = _said(win_rate(people, first, second)), len(own) - len(people)
    if not machines:
        return rate
    return f"{rate if people else 'No person judged the two'}; judgements of machines, not counted: {machines}"


def win_rate(given: Sequence[Battle], first: str, second: str) -> Estimate:
    """How often people preferred the first policy to the second; a tie counts half."""
    scores = [
        (b.score if b.first == first else 1 - b.score, b.prompt)
        for b in given
        if {b.first, b.second} == {first, second}
    ]
    return share([score for score, _ in scores], [prompt for _, prompt in scores])


def llm_comparator(
    found: Sequence[Row], pair: tuple[PolicyRecord, PolicyRecord], suite: str, said: Iterable[Fought]
) -> dict[str, Any]:
    """Two policies' answers, and what people said of them, in the format LLM Comparator reads (PAIR-code/llm-comparator, 2024).

    People judge answers that were sampled for them, which are seldom those of the suite; what they judged follows these.
    """
    first, second = pair
    ratings = _ratings(said, (first.digest, second.digest))
    examples: list[dict[str, Any]] = []
    for row in found:
        texts = (row.texts.get("prompt", ""), row.texts.get("answer before", ""), row.texts.get("answer now", ""))
        examples.append(_example(texts, row.slices, (row.before, row.now), ratings.pop(texts, [])))
    examples += [_example(texts, {}, (None, None), given) for texts, given in ratings.items()]
    schema = [{"name": "tokens", "type": "per_model_number"}]
    return {
        "metadata": {"source_path": suite, "custom_fields_schema": schema},
        "models": [{"name": first.name}, {"name": second.name}],
        "examples": examples,
    }


def _ratings(said: Iterable[Fought], pair: tuple[str, str]) -> dict[Texts, list[dict[str, Any]]]:
    """What people said of answers of two policies, by prompt and both answers; 1.5 where the first's is much better."""
    found: dict[Texts, list[dict[str, Any]]] = {}
    for comparison, judgement, policies, lead in said:
        if set(policies) != set(pair) or is_machine(judgement.annotator):
            continue
        at = policies.index(pair[0])
        answers = [each.text for each in comparison.completions]
        rating = {
            "score": (lead if at == 0 else -lead) / 2,
            "is_flipped": judgement.shown_order == (1 - at, at),
            "rationale": judgement.rationale,
        }
        found.setdefault((comparison.prompt.text, answers[at], answers[1 - at]), []).append(rating)
    return found


def _example(
    texts: Texts, slices: Mapping[str, str], tokens: tuple[float | None, float | None], given: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "input_text": texts[0],
        "tags": [f"{k}={v}" for k, v in slices.items()],
        "output_text_a": texts[1],
        "output_text_b": texts[2],
        # None where nobody judged them: 0 would be a tie.
        "score": fmean(each["score"] for each in given) if given else None,
        "individual_rater_scores": given,
        "custom_fields": {"tokens": list(tokens)},
    }


def _pair(
    inspection: Inspection, asked: Mapping[str, str], *, count: int = AT_ONCE
) -> tuple[PolicyRecord | None, PolicyRecord | None, str, Found | None]:
    """The two policies, and their answers to what both were asked."""
    registry = inspection.places.registry
    newest = registry.get(inspection.newest())
    try:
        second = registry.resolve(asked["second"]) if asked["second"] else newest
        first = registry.resolve(asked["first"] or second.parent or second.digest)
    except PolicyError as error:
        raise HTTPException(404, str(error)) from error
    suites = _suites(inspection, first, second)
    suite = asked["suite"] if asked["suite"] in suites else next(iter(suites), "")
    condition = _condition(inspection, second)
    if not suite or condition is None:
        return first, second, suite, None
    name = "length" if suite.startswith(ANSWERS) else "accuracy" if suite.startswith("retention/") else "tax"
    wanted = Wanted(second.digest, first.digest, name, suite, condition, turn=_turn(asked["sort"]))
    return first, second, suite, find_rows(inspection.places, wanted, start=_start(asked), count=count)


def _turn(sort: str) -> str:
    return sort if sort in {"lost", "gained", "same"} else ""


def _start(asked: Mapping[str, str]) -> int:
    return int(asked["start"]) if asked["start"].isdecimal() else 0


def _condition(inspection: Inspection, policy: PolicyRecord) -> str | None:
    """How the numbers of a policy were measured."""
    return inspection.condition(inspection.places.registry.lineage(policy.digest))


def _suites(inspection: Inspection, first: PolicyRecord | None, second: PolicyRecord | None) -> dict[str, str]:
    """What both were measured on, answers first, by what people call it."""
    if first is None or second is None:
        return {}
    names, condition = inspection.names(), _condition(inspection, second)
    measured = [inspection.places.ledger.suites(policy.digest) for policy in (first, second)]
    one, other = ({m.suite for m in each if m.numerics == condition} for each in measured)
    both = one & other
    kinds = {"samples": "answers to", "retention": "pairs of"}
    found = {
        s: f"{kinds.get(s.split('/')[0], s.split('/')[0])} {names.get(s.partition('/')[2], '')}".strip() for s in both
    }
    return dict(sorted(found.items(), key=lambda each: (not each[0].startswith(ANSWERS), each[1])))


def _rankings(given: Sequence[Battle], names: Mapping[str, str]) -> list[tuple[str, Any, list[str]]]:
    """The ranking as it is, and with length and mark-up held equal."""
    if not given:
        return []
    plain = rank([Decided(b.first, b.second, b.score, b.prompt) for b in given])
    held = rank([Decided(b.first, b.second, b.score, b.prompt, (b.longer, b.marked)) for b in given])
    effects = [
        f"one standard deviation of {what}: {_said(e)}"
        for what, e in zip(("length", "mark-up"), held.effects, strict=False)
    ]
    return [
        ("What people preferred", _drawn(plain, names, "Strength of policies"), []),
        ("The same, length and mark-up held equal", _drawn(held, names, "Strength, style held equal"), effects),
    ]


def _drawn(ranking: Ranking, names: Mapping[str, str], title: str) -> Any:
    bars = [Bar(names.get(digest, digest[:12]), value) for digest, value in ranking.strengths]
    return rows(bars, title=title, unit="logits around the mean")


def _said(value: Estimate) -> str:
    return format_estimate(value)
