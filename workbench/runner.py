"""The runner: the process that owns Ray. Here it serves policies over an OpenAI-compatible endpoint that streams.

It answers on this machine alone; with a key, to whoever knows the key.
"""

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from preference_data.records import Message, Prompt
from workbench.config import NumericsSettings
from workbench.errors import WorkbenchError
from workbench.speaking import Speak, SpeakJob
from workbench.tasks import PolicyRef

MOST_TOKENS = 4096


class Turn(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=100_000)


class Asked(BaseModel):
    """A request for an answer; parameters nobody here knows are passed over, as such endpoints do."""

    model_config = ConfigDict(extra="ignore")

    model: str
    messages: list[Turn] = Field(min_length=1, max_length=1000)
    stream: bool = False
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=256, ge=1, le=MOST_TOKENS)
    seed: int | None = None


def endpoint(speak: Speak, policies: Mapping[str, PolicyRef], numerics: NumericsSettings, *, key: str = "") -> FastAPI:
    """The application.

    Args:
        speak: answers a job in pieces.
        policies: what is served, by name.
        numerics: threads of a worker, and its precision.
        key: what `Authorization: Bearer` must hold; empty for none.
    """
    app = FastAPI(title="Policies", openapi_url=None)

    def allowed(authorization: Annotated[str, Header()] = "") -> None:
        if key and not secrets.compare_digest(authorization.encode(), f"Bearer {key}".encode()):
            raise HTTPException(401, "the key is missing or another; give Authorization: Bearer KEY")

    @app.get("/healthz")
    def healthy() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/v1/models", dependencies=[Depends(allowed)])
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name, ref) for name, ref in policies.items()]}

    @app.post("/v1/chat/completions", dependencies=[Depends(allowed)], response_model=None)
    def complete(asked: Asked) -> StreamingResponse | dict[str, Any]:
        if asked.model not in policies:
            raise HTTPException(404, f"model {asked.model!r}: not served; there are {', '.join(policies)}")
        job = SpeakJob(
            policy=policies[asked.model],
            prompt=Prompt(tuple(Message(each.role, each.content) for each in asked.messages)),
            max_new_tokens=asked.max_tokens,
            temperature=asked.temperature,
            top_p=asked.top_p,
            seed=secrets.randbelow(2**31) if asked.seed is None else asked.seed,
            numerics=numerics,
        )
        named = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": asked.model}
        pieces = speak(job)
        if asked.stream:
            return StreamingResponse(_events(pieces, named), media_type="text/event-stream")
        message = {"role": "assistant", "content": "".join(pieces).strip()}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return {**named, "object": "chat.completion", "choices": [choice]}

    app.add_exception_handler(WorkbenchError, lambda _, error: JSONResponse({"error": str(error)}, status_code=500))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    return app


def _model(name: str, policy: PolicyRef) -> dict[str, str]:
    """A name may come to mean another policy; the digest never does."""
    return {"id": name, "object": "model", "policy": policy.digest}


def _events(pieces: Iterator[str], named: Mapping[str, Any]) -> Iterator[str]:
    """Server-sent events as clients of such endpoints read them."""
    for piece in pieces:
        yield _event(named, {"content": piece}, None)
    yield _event(named, {}, "stop")
    yield "data: [DONE]\n\n"


def _event(named: Mapping[str, Any], delta: Mapping[str, str], finished: str | None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finished}
    return f"data: {json.dumps({**named, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"
