"""Logging in through an identity provider, against a small one of our own that signs what a test has it say."""

import base64
import hashlib
import time
from contextlib import contextmanager
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse
from joserfc import jwt
from joserfc.jwk import RSAKey

from preference_data.accounts import Accounts, Wanted
from tests.page_kit import Page, running
from ui.app import make_app
from ui.openid import BACK, Provider

CLIENT, SECRET = "the-page", "what-the-page-knows"
PASSWORD = "four words nobody guesses"


class Organisation:
    """An identity provider at which everybody is whom `claims` say."""

    def __init__(self):
        self.key = self.signs_with = RSAKey.generate_key(2048, {"kid": "one"})
        self.claims = {"email": "ann@example.org", "email_verified": True}
        self.asked = {}

    def application(self, host):
        self.address = f"http://{host}"
        app = FastAPI()

        @app.get("/.well-known/openid-configuration")
        def metadata():
            return {
                "issuer": self.address,
                "authorization_endpoint": f"{self.address}/authorize",
                "token_endpoint": f"{self.address}/token",
                "jwks_uri": f"{self.address}/keys",
                "id_token_signing_alg_values_supported": ["RS256"],
            }

        @app.get("/authorize")
        def authorize(request: Request):
            self.asked = dict(request.query_params)
            words = urlencode({"code": "a-code", "state": self.asked["state"]})
            return RedirectResponse(f"{self.asked['redirect_uri']}?{words}")

        @app.post("/token")
        async def token(request: Request):
            sent = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
            name, _, secret = base64.b64decode(request.headers["authorization"].split()[1]).decode().partition(":")
            assert (name, secret, sent["code"]) == (CLIENT, SECRET, "a-code")
            # RFC 7636: whoever redeems the code is who asked for it
            digest = hashlib.sha256(sent["code_verifier"].encode()).digest()
            assert base64.urlsafe_b64encode(digest).decode().rstrip("=") == self.asked["code_challenge"]
            at = int(time.time())
            claims = {"iss": self.address, "aud": CLIENT, "sub": "7", "iat": at, "exp": at + 60}
            claims |= {"nonce": self.asked["nonce"]} | self.claims
            signed = jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.signs_with)
            return {"access_token": "unused", "token_type": "Bearer", "id_token": signed}

        @app.get("/keys")
        def keys():
            return {"keys": [self.key.as_dict(private=False)]}

        return app


@pytest.fixture
def organisation():
    return Organisation()


@contextmanager
def visited(tmp_path, organisation, *, claim="email"):
    """Accounts, and a browser's client of the page whose people the organisation may let in."""
    store = Page(tmp_path).store
    accounts = Accounts(store.engine)
    accounts.create("boss", PASSWORD, "admin", by="test")
    accounts.create("ann@example.org", None, by="boss")
    with running(organisation.application) as issuer:
        provider = Provider(issuer=issuer, client=CLIENT, secret=SECRET, claim=claim)
        with (
            running(lambda host: make_app(store, person="", hosts=[host], provider=provider)) as url,
            httpx.Client(base_url=url, follow_redirects=True, timeout=30) as client,
        ):
            yield accounts, client


def test_whoever_has_an_account_is_let_in_and_leaves_again(tmp_path, organisation):
    with visited(tmp_path, organisation) as (_, client):
        assert client.get("/api/ways").json() == {"provider": True}
        assert client.get("/api/me").status_code == 401
        answer = client.get("/openid/start")
        assert (answer.status_code, answer.url.path) == (200, "/judge.html")
        assert client.get("/api/me").json()["person"] == "ann@example.org"
        session = next(each for each in client.cookies.jar if each.name == "session")
        assert session.has_nonstandard_attr("HttpOnly")
        assert session.get_nonstandard_attr("SameSite") == "strict"
        client.post("/api/logout", headers={"origin": str(client.base_url).rstrip("/")})
        assert client.get("/api/me").status_code == 401


def test_the_provider_is_told_one_exact_way_back_and_asked_for_a_proof(tmp_path, organisation):
    with visited(tmp_path, organisation) as (_, client):
        client.get("/openid/start")
        asked = organisation.asked
        assert asked["redirect_uri"] == f"{str(client.base_url).rstrip('/')}{BACK}"
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert len(asked["state"]) >= 20
        assert len(asked["nonce"]) >= 16


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"email": "eve@example.org"}, "unknown"),
        ({"email_verified": False}, "unproved"),
        ({"email_verified": "true"}, "unproved"),
        ({"email": ""}, "unproved"),
        ({"email": ["ann@example.org"]}, "unproved"),
        ({"iss": "https://elsewhere.example"}, "unproved"),
        ({"aud": "another-page"}, "unproved"),
        ({"nonce": "an-older-one"}, "unproved"),
        ({"exp": 1_000_000_000}, "unproved"),
    ],
)
def test_whoever_is_not_proved_or_not_known_stays_outside(tmp_path, organisation, claims, why):
    organisation.claims |= claims
    with visited(tmp_path, organisation) as (_, client):
        answer = client.get("/openid/start")
        assert (answer.url.path, answer.url.fragment) == ("/login.html", why)
        assert client.get("/api/me").status_code == 401


def test_a_token_signed_by_somebody_else_is_no_proof(tmp_path, organisation):
    organisation.signs_with = RSAKey.generate_key(2048, {"kid": "one"})
    with visited(tmp_path, organisation) as (_, client):
        assert client.get("/openid/start").url.fragment == "unproved"
        assert client.get("/api/me").status_code == 401


def test_a_way_back_that_was_not_begun_in_this_browser_leads_nowhere(tmp_path, organisation):
    # An attacker has their own code sent to a victim's browser, which would then work under the attacker's name.
    with visited(tmp_path, organisation) as (_, client):
        begun = client.get("/openid/start", follow_redirects=False)
        state = parse_qs(urlsplit(begun.headers["location"]).query)["state"][0]
        with httpx.Client(base_url=client.base_url, follow_redirects=True) as victim:
            answer = victim.get(BACK, params={"code": "a-code", "state": state})
            assert answer.url.fragment == "unproved"
            assert victim.get("/api/me").status_code == 401


def test_coming_back_twice_counts_once(tmp_path, organisation):
    with visited(tmp_path, organisation) as (_, client):
        begun = client.get("/openid/start", follow_redirects=False)
        back = httpx.get(begun.headers["location"]).headers["location"]
        assert client.get(back).url.path == "/judge.html"
        assert client.get(back).url.fragment == "unproved"


def test_a_closed_account_stays_closed(tmp_path, organisation):
    with visited(tmp_path, organisation) as (accounts, client):
        accounts.change("ann@example.org", Wanted(state="closed"), by="boss")
        assert client.get("/openid/start").url.fragment == "unknown"


def test_another_claim_can_name_the_account(tmp_path, organisation):
    organisation.claims = {"preferred_username": "boss"}
    with visited(tmp_path, organisation, claim="preferred_username") as (_, client):
        client.get("/openid/start")
        assert client.get("/api/me").json()["person"] == "boss"


def test_nobody_without_a_password_comes_in_by_one(tmp_path, organisation):
    with visited(tmp_path, organisation) as (_, client):
        said = {"name": "ann@example.org", "password": "anything at all, really"}
        origin = {"origin": str(client.base_url).rstrip("/")}
        assert client.post("/api/login", json=said, headers=origin).status_code == 403


def test_a_provider_that_does_not_answer_is_told_and_passwords_still_work(tmp_path):
    store = Page(tmp_path).store
    Accounts(store.engine).create("boss", PASSWORD, "admin", by="test")
    provider = Provider(issuer="http://127.0.0.1:9", client=CLIENT)
    with (
        running(lambda host: make_app(store, person="", hosts=[host], provider=provider)) as url,
        httpx.Client(base_url=url, follow_redirects=True) as client,
    ):
        assert client.get("/openid/start").url.fragment == "unreachable"
        said = {"name": "boss", "password": PASSWORD}
        assert client.post("/api/login", json=said, headers={"origin": url}).status_code == 200


def test_without_a_provider_there_is_no_such_way(tmp_path):
    store = Page(tmp_path).store
    Accounts(store.engine).create("boss", PASSWORD, "admin", by="test")
    with running(lambda host: make_app(store, person="", hosts=[host])) as url:
        assert httpx.get(f"{url}/api/ways").json() == {"provider": False}
        assert httpx.get(f"{url}/openid/start").status_code == 404
