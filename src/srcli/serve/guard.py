"""What stands between the network and the routes: who may ask, from where, and how much.

A page of another site can reach a server on this machine, by its address or by a name that it has resolve to it. So
every request names the right host, carries the token, and, where it changes something, comes from our own page.
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
    """The client went silent in the middle of a body, or sends it in drops."""


class Guard:
    """Refuses what may not pass, and sets the headers of every answer."""

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

        answer = self._refusal(scope, headers)
        if answer is not None:
            await answer(scope, receive, send_with_headers)
            return
        await self._app(scope, _limited(receive, self._settings.limits), send_with_headers)

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> JSONResponse | RedirectResponse | None:
        if not self._names_us(headers.get("host", "")):
            return answer_error(421, "host", "this server does not answer to that name")
        if scope["method"] not in SAFE_METHODS and not _is_own(headers):
            return answer_error(403, "origin", "another site sent this")
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and self._is_token(given):
            return self._let_in()
        if not self._is_token(self._carried(headers)):
            return answer_error(401, "token", "open the address that srcli serve printed, or send its token")
        if (parse_length(headers.get("content-length")) or 0) > self._settings.limits.body:
            return answer_error(413, "too-large", f"at most {self._settings.limits.body} bytes are taken")
        return None

    def _names_us(self, host: str) -> bool:
        """On loopback only our own names; elsewhere nobody can know the names, and the token stands alone."""
        name = host.rsplit(":", 1)[0].lower()
        return not self._settings.on_loopback or name in (*LOCAL_NAMES, self._settings.host.lower())

    def _carried(self, headers: Mapping[str, str]) -> str:
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return value.strip()
        return cookie_parser(headers.get("cookie", "")).get(self.cookie, "")

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self._settings.token.encode())

    def _let_in(self) -> RedirectResponse:
        """The token moves from the address, which histories keep, to a cookie that scripts cannot read."""
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self.cookie, self._settings.token, httponly=True, samesite="strict")
        return answer


def answer_error(status: int, kind: str, message: str) -> JSONResponse:
    """An error as every client gets it."""
    return JSONResponse({"error": {"kind": kind, "message": message}}, status)


def parse_length(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _is_own(headers: Mapping[str, str]) -> bool:
    """Browsers name the page's origin whenever they change something; other programs name none."""
    origin = headers.get("origin")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    return origin is None or origin.partition("://")[2] == headers.get("host")


def _limited(receive: Receive, limits: ServerLimits) -> Receive:
    """The body, counted, and with an end to the wait for each piece and for all of it."""
    seen, whole, until = 0, False, time.monotonic() + limits.sending

    async def receive_limited() -> Message:
        nonlocal seen, whole
        if whole:  # what follows is a disconnect, for which one may wait
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), min(limits.silence, until - time.monotonic()))
        except TimeoutError as error:
            raise BodyTooSlow from error
        seen += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        if seen > limits.body:
            raise BodyTooLarge
        return message

    return receive_limited
