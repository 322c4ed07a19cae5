"""The page's server: static files, and the calls the page makes."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import unquote

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field

from preference_data.accounts import Account, Accounts
from preference_data.errors import PreferenceDataError, QueueError, Refused, StoreError
from preference_data.projects import Projects
from preference_data.queue import Queue
from preference_data.store import Store
from ui.arena import Arena, add_arena
from ui.avoiding import add_avoiding
from ui.causes import Causes, add_causes
from ui.chores import Chores
from ui.compare import add_compare
from ui.drift import add_asking, add_drift
from ui.guard import Guard
from ui.judging import Said, own_facts, project_facts, receipt_facts, showing_facts
from ui.leads import PATH, add_leads, lead_page
from ui.people import Local, LoggedIn, Person, add_login
from ui.rounds import add_rounds
from ui.shown import LEADS, add_styles
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from ui.openid import Provider
    from workbench.views.inspection import Inspection

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


def make_app(
    store: Store,
    *,
    person: str,
    hosts: Iterable[str],
    scheme: Literal["http", "https"] = "http",
    workspace: str = "",
    arena: Arena | None = None,
    provider: "Provider | None" = None,
    inspection: "Inspection | None" = None,
) -> FastAPI:
    """The application.

    Args:
        store: the preferences; if it has accounts, people log in.
        person: handle of whoever judges, where there are no accounts.
        hosts: names with ports the page is served under, such as `127.0.0.1:7861`.
        scheme: what browsers reach it by.
        workspace: folder of the workspace, for imports, exports and freezes; empty for none.
        arena: where policies answer what people type; None for no arena.
        inspection: reads rounds and measurements; None for no drift pages.
        provider: proves who people with accounts are, beside their passwords; they come back to the first host.
    """
    hosts = tuple(hosts)
    app = FastAPI(title="Annotation", openapi_url=None)
    people = _add_people(app, store, person, provider, at=f"{scheme}://{hosts[0]}")

    @app.get("/")
    def start() -> RedirectResponse:
        return RedirectResponse("/judge.html")

    @app.get("/healthz")
    def healthy() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/api/ways")
    def ways() -> dict[str, bool]:
        return {"provider": provider is not None}

    @app.get("/api/me")
    def me(person: Person) -> dict[str, Any]:
        return {
            "person": person.handle,
            "leads": person.role in LEADS,
            "accounts": isinstance(people, LoggedIn),
            "arena": arena is not None,
            "drift": inspection is not None and person.role in LEADS,
        }

    _add_judging(app, store)
    if arena is not None:
        add_arena(app, arena)
    add_styles(app)
    app.state.prepare = lambda: None
    if inspection is not None:
        causes = Causes(inspection, store)
        app.state.prepare = add_drift(app, inspection, causes)
        add_causes(app, causes)
        add_asking(app, inspection, Chores(workspace))
        add_rounds(app, inspection, store, Chores(workspace))
        add_compare(app, inspection, store, arena)
    add_leads(app, lead_page(store, Chores(workspace), nobody=person), people.who)
    app.mount("/", StaticFiles(directory=STATIC), name="static")
    _add_answers(app)
    app.add_middleware(Guard, hosts=hosts, scheme=scheme, gradio=PATH)
    return app


def _add_people(app: FastAPI, store: Store, person: str, provider: "Provider | None", *, at: str) -> LoggedIn | Local:
    """Who may ask: whoever logs in where there are accounts, else the one person."""
    accounts, secure = Accounts(store.engine), at.startswith("https")
    if not accounts.any():
        app.state.people = Local(person)
        return app.state.people
    people = LoggedIn(accounts)
    add_login(app, accounts, people, secure=secure)
    if provider is not None:
        from ui.openid import add_openid  # noqa: PLC0415 - cryptography is not loaded where nobody asks for it

        add_openid(app, accounts, provider, at=at, secure=secure)
    add_avoiding(app, store, accounts, people)
    app.state.people = people
    return people


def _add_judging(app: FastAPI, store: Store) -> None:
    """Add the calls of the judging page."""
    queue, projects = Queue(store.engine), Projects(store.engine)

    @app.get("/api/projects")
    def list_projects(_: Person) -> list[dict[str, Any]]:
        return [project_facts(each, *queue.remaining(each.name)) for each in projects.all()]

    def take(wanted: Wanted, person: Account) -> JSONResponse:
        if person.state == "paused":
            facts = project_facts(projects.get(wanted.project), *queue.remaining(wanted.project))
            return JSONResponse({"project": facts, "showings": [], "back": [], "why": "paused"})
        taken = queue.take(
            wanted.project, person.handle, count=wanted.count, abilities=person.abilities, avoid=person.avoid
        )
        return JSONResponse({
            "project": project_facts(taken.project, taken.items, taken.open),
            "showings": [showing_facts(s) for s in taken.showings],
            "back": [own_facts(own) | {"note": note.reason, "number": note.note} for own, note in taken.back],
            "why": taken.why,
        })  # fmt: skip

    one_at_a_time = CapacityLimiter(1)

    @app.post("/api/take")
    async def take_in_turn(wanted: Wanted, person: Person) -> JSONResponse:
        # Whoever takes has items left, whoever judged waits: where many come at once, judgements go first.
        return await to_thread.run_sync(take, wanted, person, limiter=one_at_a_time)

    @app.post("/api/judge")
    def judge(said: Said, person: Person, x_person: Annotated[str, Header()] = "") -> dict[str, Any]:
        if unquote(x_person) not in {"", person.handle}:  # said before another person logged in from this browser
            raise HTTPException(401)
        keep = queue.correct if said.again else queue.submit
        return receipt_facts(keep(said.lease, person.handle, said.given()))

    @app.get("/api/own")
    def own(project: str, person: Person, last: int = 20) -> list[dict[str, Any]]:
        return [own_facts(each) for each in queue.own(project, person.handle, last=min(max(last, 1), LAST))]


def _add_answers(app: FastAPI) -> None:
    """Add what is answered where something is refused or wrong."""
    for kind, status in (
        (Refused, 409),
        (QueueError, 404),
        (StoreError, 503),
        (PreferenceDataError, 409),
        (WorkbenchError, 409),
    ):
        app.add_exception_handler(kind, _answer(status))
    app.add_exception_handler(401, _log_in_first)
    app.add_exception_handler(RequestValidationError, _not_understood)


def _not_understood(_: Request, error: Any) -> JSONResponse:
    """What is wrong with a request, without what it said: that need not be text that can be sent."""
    told = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    return JSONResponse({"message": told.encode("utf-8", "replace").decode()}, status_code=422)


def _answer(status: int) -> Any:
    def handle(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"message": str(error)}, status_code=status)

    return handle


def _log_in_first(request: Request, __: Exception) -> Response:
    if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
        return RedirectResponse("/login.html")
    return JSONResponse({"message": "nobody is logged in; log in and try again"}, status_code=401)
