"""Who is asking: on one's own machine one person without a password, otherwise whoever has logged in."""

import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Annotated, Any, Protocol

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from preference_data.accounts import SESSION_H, Account, Accounts
from preference_data.errors import AccessRefused

COOKIE = "session"
FAILURES = 5
"""Wrong passwords after which a name, or an address, has to wait."""
WAIT_S = 300.0
RECENT_S = 30.0
"""How long a session is believed without asking the database again."""


class People(Protocol):
    """Tells who makes a request."""

    def who(self, request: Request) -> Account | None:
        """The account, None where nobody is logged in."""
        ...


class Local:
    """One person, who needs no password because nobody else can reach the page."""

    def __init__(self, handle: str) -> None:
        """Take everybody for that person."""
        self._account = Account(handle, 0, 0, "admin", "active", {}, {})

    def who(self, request: Request) -> Account | None:
        """That person."""
        return self._account


class LoggedIn:
    """Whoever the session cookie says."""

    def __init__(self, accounts: Accounts) -> None:
        """Ask these accounts."""
        self._accounts = accounts
        self._recent: dict[str, tuple[float, Account]] = {}

    def who(self, request: Request) -> Account | None:
        """The account of the session."""
        token = request.cookies.get(COOKIE, "")
        if not token:
            return None
        known = self._recent.get(token)
        if known and known[0] > time.monotonic():
            return known[1]
        found = self._accounts.who(token)
        if found is None or found.state == "closed":
            self._recent.pop(token, None)
            return None
        self._recent[token] = (time.monotonic() + RECENT_S, found)
        return found

    def forget(self, token: str) -> None:
        """Ask the database next time."""
        self._recent.pop(token, None)


def current(request: Request) -> Account:
    """Whoever makes a request; answers 401 where nobody is logged in."""
    people: People = request.app.state.people
    found = people.who(request)
    if found is None:
        raise HTTPException(401)
    return found


Person = Annotated[Account, Depends(current)]


class Throttle:
    """Lets a key try so many times per span, then makes it wait. In memory: a restart costs an attacker more than us."""

    def __init__(self, times: int, span_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Allow `times` failures within `span_s` seconds."""
        self._times, self._span_s, self._clock = times, span_s, clock
        self._failed: defaultdict[str, deque[float]] = defaultdict(deque)

    def wait_s(self, key: str) -> float:
        """Seconds until the key may try again, 0 where it may now."""
        failed, at = self._failed[key], self._clock()
        while failed and failed[0] <= at - self._span_s:
            failed.popleft()
        if not failed:
            del self._failed[key]
        return failed[0] + self._span_s - at if len(failed) >= self._times else 0.0

    def failed(self, key: str) -> None:
        """Count a failure."""
        self._failed[key].append(self._clock())


class LogIn(BaseModel):
    """What the log-in page sends."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200)
    password: str = Field(min_length=1, max_length=1000)


def remember(answer: Response, token: str, *, secure: bool) -> None:
    """Have the browser keep a session: not for scripts, not for requests from other sites."""
    cookie: dict[str, Any] = {"httponly": True, "samesite": "strict", "secure": secure, "path": "/"}
    answer.set_cookie(COOKIE, token, max_age=SESSION_H * 3600, **cookie)


def add_login(app: FastAPI, accounts: Accounts, people: LoggedIn, *, secure: bool) -> None:
    """Add the calls of the log-in page.

    Args:
        app: the application.
        accounts: who may log in.
        people: told of whom to forget.
        secure: the page is served over HTTPS, and the cookie goes nowhere else.
    """
    throttle = Throttle(FAILURES, WAIT_S)

    @app.post("/api/login")
    def log_in(wanted: LogIn, request: Request) -> Response:
        keys = [f"name {wanted.name}", f"address {request.client.host if request.client else ''}"]
        if wait := max(throttle.wait_s(key) for key in keys):
            message = f"too many wrong passwords; try again in {wait / 60:.0f} min"
            return JSONResponse({"message": message}, status_code=429, headers={"retry-after": f"{wait:.0f}"})
        try:
            token = accounts.log_in(wanted.name, wanted.password)
        except AccessRefused as error:
            for key in keys:
                throttle.failed(key)
            return JSONResponse({"message": str(error)}, status_code=403)
        answer = JSONResponse({"person": wanted.name})
        remember(answer, token, secure=secure)
        return answer

    @app.post("/api/logout")
    def log_out(request: Request) -> Response:
        token = request.cookies.get(COOKIE, "")
        people.forget(token)
        accounts.log_out(token)
        answer = JSONResponse({"person": ""})
        answer.delete_cookie(COOKIE)
        return answer
