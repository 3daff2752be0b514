"""Checks of every request: host, token, origin and size.

Pages of other sites can send requests to a server on this machine, by its address or by a name that resolves to it. So
a request must name the right host, carry the token, and, if it changes anything, come from our own page.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from urllib.parse import parse_qs

from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from srcli.serve.settings import ServerLimits, ServerSettings

LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
SAFE_METHODS = ("GET", "HEAD")
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class BodyTooLarge(Exception):
    """The body is larger than allowed."""


class BodyTooSlow(Exception):
    """The client stopped in the middle of a body, or sends it very slowly."""


class Guard:
    """Refuses requests that fail a check, and adds security headers to every answer."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app, self._settings = app, settings
        self.cookie = f"srcli_{settings.port}"  # cookies do not tell ports apart

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                extra = [(n.encode(), v.encode()) for n, v in HEADERS.items() if n.encode() not in present]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        answer = self._find_refusal(scope, headers)
        if answer is not None:
            await answer(scope, receive, send_with_headers)
            return
        await self._app(scope, _limit_body(receive, self._settings.limits), send_with_headers)

    def _find_refusal(self, scope: Scope, headers: Mapping[str, str]) -> JSONResponse | RedirectResponse | None:
        if not self._is_own_host(headers.get("host", "")):
            return answer_error(421, "host", "this server does not answer to that name")
        if scope["method"] not in SAFE_METHODS and not _is_own(headers):
            return answer_error(403, "origin", "another site sent this")
        token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and self._is_token(token):
            return self._store_token()
        if not self._is_token(self._sent_token(headers)):
            return answer_error(401, "token", "open the address that srcli serve printed, or send its token")
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length) > self._settings.limits.body:
            return answer_error(413, "too-large", f"at most {self._settings.limits.body} bytes are taken")
        return None

    def _is_own_host(self, host: str) -> bool:
        """Whether the host is ours. Checked on loopback only: elsewhere our names are unknown."""
        name = host.rsplit(":", 1)[0].lower()
        return not self._settings.on_loopback or name in (*LOCAL_NAMES, self._settings.host.lower())

    def _sent_token(self, headers: Mapping[str, str]) -> str:
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return value.strip()
        return cookie_parser(headers.get("cookie", "")).get(self.cookie, "")

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(), self._settings.token.encode())

    def _store_token(self) -> RedirectResponse:
        """Move the token from the address, which browsers remember, to a cookie that scripts cannot read."""
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self.cookie, self._settings.token, httponly=True, samesite="strict")
        return answer


def answer_error(status: int, kind: str, message: str) -> JSONResponse:
    return JSONResponse({"error": {"kind": kind, "message": message}}, status)


def _is_own(headers: Mapping[str, str]) -> bool:
    """Whether the request comes from our page: browsers send the origin with changes, other programs send none."""
    origin = headers.get("origin")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    return origin is None or origin.partition("://")[2] == headers.get("host")


def _limit_body(receive: Receive, limits: ServerLimits) -> Receive:
    """Limit the size of the body, and the time to wait for each piece and for all of it."""
    received, complete, deadline = 0, False, time.monotonic() + limits.sending

    async def receive_limited() -> Message:
        nonlocal received, complete
        if complete:  # only a disconnect follows, which may take any time
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), min(limits.silence, deadline - time.monotonic()))
        except TimeoutError as error:
            raise BodyTooSlow from error
        received += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if received > limits.body:
            raise BodyTooLarge
        return message

    return receive_limited
