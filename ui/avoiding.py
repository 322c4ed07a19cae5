"""People need not look at everything: whoever logs in may ask for no more of a topic."""

from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field

from preference_data.accounts import Accounts
from preference_data.choosing import give_back_avoided
from preference_data.store import Store
from ui.judging import TOPIC
from ui.people import COOKIE, LoggedIn, Person


class Unwanted(BaseModel):
    """What somebody wants to see no more of."""

    model_config = ConfigDict(extra="forbid")

    project: str = Field(max_length=500)
    topic: str = Field(min_length=1, max_length=500)


def add_avoiding(app: FastAPI, store: Store, accounts: Accounts, people: LoggedIn) -> None:
    """Add the call. The items of that topic which the person holds go to others; what they said of some stays."""

    @app.post("/api/avoid")
    def avoid(wanted: Unwanted, person: Person, request: Request) -> dict[str, Any]:
        after = accounts.avoid(person.handle, TOPIC, wanted.topic)
        people.forget(request.cookies.get(COOKIE, ""))
        return {"given_back": give_back_avoided(store.engine, wanted.project, person.handle, after.avoid)}
