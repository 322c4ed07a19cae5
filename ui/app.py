"""The page's server: static files, and the calls the page makes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field

from preference_data.errors import QueueError, Refused, StoreError
from preference_data.projects import Projects
from preference_data.queue import Queue
from preference_data.store import Store
from ui.guard import Guard
from ui.judging import Said, own_facts, project_facts, receipt_facts, showing_facts

STATIC = Path(__file__).parent / "static"
AT_ONCE = 32
"""Most items a page may hold: those it prepares, and those whose judgements are on their way."""
LAST = 50
"""Own judgements that can be looked at and corrected."""


class Wanted(BaseModel):
    """What a page asks for: items of a project."""

    model_config = ConfigDict(extra="forbid")

    project: str = Field(max_length=500)
    count: int = Field(default=4, ge=1, le=AT_ONCE)


def make_app(store: Store, *, person: str, hosts: Iterable[str]) -> FastAPI:
    """The application.

    Args:
        store: the preferences.
        person: handle of whoever judges; on one's own machine nobody logs in.
        hosts: names with ports the page is served under, such as `127.0.0.1:7861`.
    """
    app = FastAPI(title="Annotation", openapi_url=None)
    queue, projects = Queue(store.engine), Projects(store.engine)

    @app.get("/")
    def start() -> RedirectResponse:
        return RedirectResponse("/judge.html")

    @app.get("/healthz")
    def healthy() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/api/me")
    def me() -> dict[str, Any]:
        return {"person": person}

    @app.get("/api/projects")
    def list_projects() -> list[dict[str, Any]]:
        return [project_facts(each, queue.progress(each.name)) for each in projects.all()]

    @app.post("/api/take")
    def take(wanted: Wanted) -> dict[str, Any]:
        taken = queue.take(wanted.project, person, count=wanted.count)
        facts = project_facts(taken.project, queue.progress(wanted.project))
        return {"project": facts, "showings": [showing_facts(s) for s in taken.showings], "why": taken.why}

    @app.post("/api/judge")
    def judge(said: Said) -> dict[str, Any]:
        keep = queue.correct if said.again else queue.submit
        return receipt_facts(keep(said.lease, person, said.given()))

    @app.get("/api/own")
    def own(project: str, last: int = 20) -> list[dict[str, Any]]:
        return [own_facts(each) for each in queue.own(project, person, last=min(max(last, 1), LAST))]

    app.mount("/", StaticFiles(directory=STATIC), name="static")
    app.add_exception_handler(Refused, _answer(409))
    app.add_exception_handler(QueueError, _answer(404))
    app.add_exception_handler(StoreError, _answer(503))
    app.add_middleware(Guard, hosts=tuple(hosts))
    return app


def _answer(status: int) -> Any:
    def handle(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"message": str(error)}, status_code=status)

    return handle
