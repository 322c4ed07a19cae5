"""Logging in through an organisation's identity provider (OpenID Connect), for whoever has an account here.

Authlib does the protocol: code flow with state, nonce and PKCE (RFC 7636); signature, issuer, audience and times of the
ID token are checked. Who may come in, and as what, stays with the accounts: the provider tells a name and nothing else.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
from anyio import to_thread
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.starlette_client import OAuth
from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from joserfc.errors import JoseError
from starlette.middleware.sessions import SessionMiddleware

from preference_data.accounts import Accounts
from preference_data.errors import AccessRefused, QueueError
from ui.people import remember

WHERE = "/openid"
BACK = f"{WHERE}/back"
TAKES_S = 600
"""How long somebody may take at the provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An identity provider.

    Attributes:
        issuer: its address; `/.well-known/openid-configuration` under it tells the rest.
        client: this page's identifier there.
        secret: what proves that it is this page; empty for a public client.
        claim: what names a person's account: `email`, if the provider has verified it, or another such as
            `preferred_username`.
    """

    issuer: str
    client: str
    secret: str = ""
    claim: str = "email"


def add_openid(app: FastAPI, accounts: Accounts, provider: Provider, *, at: str, secure: bool) -> None:
    """Add the calls that begin and end logging in at the provider.

    Args:
        app: the application.
        accounts: who may come in.
        provider: who proves who they are.
        at: address of the page; the provider must know `at` + `BACK` as where people come back to.
        secure: the page is served over HTTPS.
    """
    ways: Any = OAuth()
    ways.register(
        "provider",
        client_id=provider.client,
        client_secret=provider.secret or None,
        server_metadata_url=f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration",
        client_kwargs={"scope": "openid email profile", "code_challenge_method": "S256"},
    )
    part = FastAPI(openapi_url=None)

    @part.get("/start")
    async def start(request: Request) -> Response:
        try:
            return await ways.provider.authorize_redirect(request, f"{at}{BACK}")
        except (AuthlibBaseError, httpx2.HTTPError, KeyError, ValueError, RuntimeError):
            return _refused("unreachable")

    @part.get("/back")
    async def back(request: Request) -> Response:
        try:
            told: Mapping[str, Any] = await ways.provider.authorize_access_token(request)
            metadata = await ways.provider.load_server_metadata()
            name = _name(told.get("userinfo"), provider, str(metadata.get("issuer")))
        except httpx2.HTTPError:
            return _refused("unreachable")
        except (AuthlibBaseError, JoseError, KeyError, ValueError, RuntimeError):
            return _refused("unproved")
        try:
            token = await to_thread.run_sync(accounts.begin, name)
        except (AccessRefused, QueueError):
            return _refused("unknown")
        answer = RedirectResponse("/judge.html", status_code=303)
        remember(answer, token, secure=secure)
        return answer

    # Between start and back the browser alone holds the state; it comes back from another site, so "lax".
    part.add_middleware(
        SessionMiddleware,
        secret_key=secrets.token_urlsafe(32),
        session_cookie="at-provider",
        max_age=TAKES_S,
        path=WHERE,
        same_site="lax",
        https_only=secure,
    )
    app.mount(WHERE, part)


def _name(claims: Mapping[str, Any] | None, provider: Provider, issuer: str) -> str:
    """What the account is called.

    Raises:
        ValueError: the provider proved nothing, is another than was asked for, or does not vouch for the name.
    """
    if claims is None or issuer.rstrip("/") != provider.issuer.rstrip("/"):
        raise ValueError(issuer)
    name = claims.get(provider.claim)
    if (
        not isinstance(name, str)
        or not name
        or (provider.claim == "email" and claims.get("email_verified") is not True)
    ):
        raise ValueError(provider.claim)
    return name


def _refused(why: str) -> Response:
    """Back to the log-in page, which has the words; a text in an address could be anybody's."""
    return RedirectResponse(f"/login.html#{why}", status_code=303)
