"""Pages made of templates: who may see them, and how they are answered."""

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from preference_data.accounts import Account
from ui.people import Person
from workbench.reports.document import CSS

LEADS = frozenset(["lead", "admin"])


def lead(person: Person) -> Account:
    """Whoever asks, if a lead; policies have names on these pages, which who judges must not see."""
    if person.role not in LEADS:
        raise HTTPException(403, "this page names policies, so it is for leads; ask an admin for the role")
    if person.state != "active":
        raise HTTPException(403, f"your account is {person.state}; ask an admin")
    return person


Lead = Annotated[Account, Depends(lead)]


@cache
def templates() -> Environment:
    """Templates of the page and those of reports; whatever they are given is escaped."""
    loaders = [PackageLoader("ui"), PackageLoader("workbench.reports")]
    return Environment(loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                       lstrip_blocks=True)  # fmt: skip


async def form_of(request: Request) -> dict[str, str]:
    """What a form sent, empty fields included."""
    return dict(parse_qsl((await request.body()).decode("utf-8", "replace"), keep_blank_values=True))


def page(template: str, **given: Any) -> HTMLResponse:
    """A page."""
    return HTMLResponse(templates().get_template(template).render(given))


def part(template: str, macro: str) -> Callable[..., str]:
    """A macro of a template, as a function."""
    found: Callable[..., str] = getattr(templates().get_template(template).module, macro)
    return found


def add_styles(app: FastAPI) -> None:
    """Serve the style sheet that pages share with report files."""

    @app.get("/report.css")
    def styles() -> FileResponse:
        return FileResponse(CSS, media_type="text/css")
