"""The arena: a person asks, two policies answer side by side, and are named once the person has judged them.

The answers come from any OpenAI-compatible endpoint that streams. Which policy stands where is drawn per battle and
known to this process alone until the vote is stored.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from preference_data.accounts import Account
from preference_data.errors import Refused
from preference_data.records import Comparison, Completion, Judgement, Pairwise, Prompt, Sampled, Verdict, now
from preference_data.store import Entry, Store
from ui.people import Person
from ui.rendering import rendered

MOST_BATTLES = 1000
"""Battles kept until they are judged; the oldest are forgotten first."""
TEMPERATURE, TOP_P, MAX_TOKENS = 0.7, 0.95, 512
SOURCE = "arena"
_TIMEOUT = httpx.Timeout(connect=5, read=120, write=10, pool=10)


class Asked(BaseModel):
    """A prompt typed into the arena."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(min_length=1, max_length=20_000)


class Vote(BaseModel):
    """A verdict on a battle, sides as they stood."""

    model_config = ConfigDict(extra="forbid")

    battle: str = Field(max_length=100)
    verdict: Literal["first", "second", "tie", "neither"]
    strength: Literal[1, 2, 3] | None = None


@dataclass(slots=True)
class _Battle:
    person: str
    prompt: str
    seed: int
    models: tuple[str, str]
    policies: tuple[str, str]
    texts: list[str] = field(default_factory=lambda: ["", ""])
    ended: list[bool] = field(default_factory=lambda: [False, False])


class Arena:
    """Battles under way."""

    def __init__(self, store: Store, endpoint: str, key: str = "") -> None:
        """Let the policies of an endpoint answer, such as http://127.0.0.1:8000/v1."""
        self._store, self._endpoint = store, endpoint.rstrip("/")
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._battles: dict[str, _Battle] = {}

    async def begin(self, person: str, prompt: str) -> str:
        """Draw two policies; the battle's name.

        Raises:
            HTTPException: the endpoint cannot be reached, or offers fewer than two policies.
        """
        models = await self._models()
        if len(models) < 2:
            raise HTTPException(503, f"the endpoint offers {len(models)} policies; expected two or more: `workbench serve "
                                     "--policy ONE --policy TWO`")  # fmt: skip
        rng = secrets.SystemRandom()
        first, second = rng.sample(sorted(models), 2)
        name = secrets.token_urlsafe(16)
        policies = (models[first], models[second])
        self._battles[name] = _Battle(person, prompt, rng.randrange(2**31), (first, second), policies)
        while len(self._battles) > MOST_BATTLES:
            del self._battles[next(iter(self._battles))]
        return name

    async def say(self, policies: tuple[str, str], prompt: str) -> tuple[str, str]:
        """What two policies, by digest, answer to a prompt under one seed, named and not blind.

        Raises:
            HTTPException: the endpoint cannot be reached, does not serve one of them, or breaks off.
        """
        served = {policy: name for name, policy in (await self._models()).items()}
        if missing := [policy for policy in policies if policy not in served]:
            raise HTTPException(409, f"the endpoint does not serve {missing[0][:12]}; start it with "
                                     "`workbench serve --policy ONE --policy TWO`")  # fmt: skip
        seed = secrets.randbelow(2**31)
        try:
            async with httpx.AsyncClient(timeout=_TIMEOUT, headers=self._headers) as client:
                first, second = await asyncio.gather(*(self._whole(client, served[p], prompt, seed) for p in policies))
        except httpx.HTTPError as error:
            raise HTTPException(503, f"{self._endpoint}: no answer ({type(error).__name__}); try again") from error
        return first, second

    async def _whole(self, client: httpx.AsyncClient, model: str, prompt: str, seed: int) -> str:
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": TEMPERATURE,
                "top_p": TOP_P, "max_tokens": MAX_TOKENS, "seed": seed}  # fmt: skip
        answer = await client.post(f"{self._endpoint}/chat/completions", json=body)
        answer.raise_for_status()
        return str(answer.json()["choices"][0]["message"]["content"])

    async def answer(self, name: str, person: str, side: int) -> AsyncIterator[str]:
        """The text of one side as it comes, in pieces."""
        battle = self._own(name, person)
        battle.texts[side], battle.ended[side] = "", False
        body = {
            "model": battle.models[side],
            "messages": [{"role": "user", "content": battle.prompt}],
            "stream": True,
            "temperature": TEMPERATURE,
            "top_p": TOP_P,
            "max_tokens": MAX_TOKENS,
            "seed": battle.seed + side,
        }
        async with (
            httpx.AsyncClient(timeout=_TIMEOUT, headers=self._headers) as client,
            client.stream("POST", f"{self._endpoint}/chat/completions", json=body) as response,
        ):
            response.raise_for_status()
            async for line in response.aiter_lines():
                if piece := _piece(line):
                    battle.texts[side] += piece
                    yield piece
        battle.ended[side] = True

    def judge(self, name: str, person: str, vote: Vote) -> tuple[str, str]:
        """Store a verdict with what it is about; the policies' names, as they stood.

        Raises:
            Refused: no such battle of this person, answers are still coming, or they are not two different ones.
        """
        battle = self._own(name, person)
        if not all(battle.ended):
            raise Refused("battle: an answer is not complete yet; wait for its end, or ask again")
        if battle.texts[0].strip() == battle.texts[1].strip() or not all(text.strip() for text in battle.texts):
            raise Refused("battle: expected two different answers, neither empty; ask something else")
        origins = (
            Sampled(policy, TEMPERATURE, TOP_P, MAX_TOKENS, battle.seed + k) for k, policy in enumerate(battle.policies)
        )
        answers = tuple(Completion(text, origin) for text, origin in zip(battle.texts, origins, strict=True))
        comparison = Comparison(Prompt.of(battle.prompt), answers, SOURCE)
        opinion = Pairwise(Verdict(vote.verdict), vote.strength if vote.verdict in {"first", "second"} else None)
        said = Judgement(comparison=comparison.key, annotator=person, opinion=opinion, at=now(), shown_order=(0, 1),
                         extra={"battle": name})  # fmt: skip
        self._store.add([Entry(comparison, (said,))])
        del self._battles[name]
        return battle.models

    def _own(self, name: str, person: str) -> _Battle:
        found = self._battles.get(name)
        if found is None or found.person != person:
            raise Refused("battle: unknown; it was judged already, or the page was started anew; ask again")
        return found

    async def _models(self) -> dict[str, str]:
        """What the endpoint offers: the policy behind each name, the name itself where the endpoint tells no policy."""
        try:
            async with httpx.AsyncClient(timeout=_TIMEOUT, headers=self._headers) as client:
                answer = await client.get(f"{self._endpoint}/models")
                answer.raise_for_status()
        except httpx.HTTPError as error:
            raise HTTPException(
                503, f"no policy answers at {self._endpoint} ({type(error).__name__}); start one: `workbench serve`"
            ) from error
        return {str(each["id"]): str(each.get("policy") or each["id"]) for each in answer.json()["data"]}


def add_arena(app: FastAPI, arena: Arena) -> None:
    """Add the calls of the arena's page."""

    @app.post("/api/arena/begin")
    async def begin(asked: Asked, person: Person) -> dict[str, str]:
        return {"battle": await arena.begin(_active(person), asked.prompt)}

    @app.get("/api/arena/answer/{battle}/{side}")
    async def answer(battle: str, side: Literal["0", "1"], person: Person) -> StreamingResponse:
        pieces = arena.answer(battle, person.handle, int(side))
        return StreamingResponse(_lines(pieces), media_type="application/jsonl")

    @app.post("/api/arena/vote")
    def vote(said: Vote, person: Person) -> dict[str, Any]:
        return {"policies": list(arena.judge(said.battle, _active(person), said))}


def _active(person: Account) -> str:
    """The handle of whoever may judge.

    Raises:
        Refused: a lead paused the account.
    """
    if person.state != "active":
        raise Refused(f"your account is {person.state}; ask a lead")
    return person.handle


async def _lines(pieces: AsyncIterator[str]) -> AsyncIterator[str]:
    """Pieces as JSON lines; the last line has the whole text rendered, or the reason why there is none."""
    whole = ""
    try:
        async for piece in pieces:
            whole += piece
            yield json.dumps({"piece": piece}) + "\n"
        yield json.dumps({"html": rendered(whole), "text": whole}) + "\n"
    except (httpx.HTTPError, Refused) as error:
        yield json.dumps({"error": str(error) or type(error).__name__}) + "\n"


def _piece(line: str) -> str:
    """The text of one line of a stream of server-sent events."""
    data = line.removeprefix("data:").strip()
    if not line.startswith("data:") or not data or data == "[DONE]":
        return ""
    event: dict[str, Any] = json.loads(data)
    choices: list[dict[str, Any]] = event.get("choices") or [{}]
    delta: dict[str, Any] = choices[0].get("delta", {})
    return delta.get("content") or ""
