"""What every answer of the page's server has in common: who may ask from where, and what a browser may do with it."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LARGEST_BODY = 2_000_000
"""Bytes of a request; an edited answer of 100,000 characters fits several times."""

_POLICY = "; ".join([
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self'",
    "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'",
])  # fmt: skip
# Gradio's pages hold scripts and styles of their own; still nothing may come from, or be sent to, another host.
_GRADIO = "; ".join([
    "default-src 'self'", "script-src 'self' 'unsafe-inline' 'unsafe-eval'", "style-src 'self' 'unsafe-inline'",
    "connect-src 'self'", "img-src 'self' data: blob:", "font-src 'self' data:", "worker-src 'self' blob:",
    "base-uri 'self'", "form-action 'self'", "frame-ancestors 'none'",
])  # fmt: skip
LARGEST_FILE = 20_000_000_000
"""Bytes of a file of preferences that leads upload; it is streamed to disk."""
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Refuses requests that name another host or come from another site, and bodies that are too large.

    Loopback alone is no protection: any site a person visits can make their browser ask it, under a name of the
    site's choice (DNS rebinding).
    """

    def __init__(self, app: App, *, hosts: Iterable[str], scheme: str, gradio: str) -> None:
        """Let through what asks for one of the hosts, each with its port, reached by a scheme; Gradio is at a path.

        Whoever asks for another is told the first.
        """
        hosts = tuple(hosts)
        self._app, self._hosts, self._gradio, self._first = app, frozenset(hosts), gradio, f"{scheme}://{hosts[0]}"
        self._origins = {f"{scheme}://{name}" for name in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        leads = scope["path"] == self._gradio or scope["path"].startswith(f"{self._gradio}/")
        if refusal := self._refusal(scope["method"], headers, LARGEST_FILE if leads else LARGEST_BODY):
            await _refuse(send, *refusal)
            return
        policy = {"content-security-policy": _GRADIO if leads else _POLICY}

        async def dressed(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_pairs(_HEADERS | policy)]
            await send(message)

        await self._app(scope, receive, dressed)

    def _refusal(self, method: str, headers: dict[str, str], largest: int) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if host not in self._hosts:
            return 421, f"this page is not served as {host!r}; open {self._first}"
        if method in {"GET", "HEAD"}:
            return None
        if headers.get("origin") not in self._origins:
            return 403, "the request comes from another site; use the page itself"
        # Without a length a body could be endless; browsers and clients always give it for what fits in memory.
        length = headers.get("content-length", "")
        if not length.isdigit() or int(length) > largest:
            return 413, f"the request has {length or 'an unknown number of'} bytes; expected at most {largest}"
        return None


def _pairs(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


async def _refuse(send: Send, status: int, message: str) -> None:
    headers = _pairs({"content-type": "text/plain; charset=utf-8", **_HEADERS})
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": message.encode()})
