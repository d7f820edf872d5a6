"""What every request passes on its way in: keys, sizes, and a line in the log."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from ssd_lab.serve.errors import ApiError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/health", "/ready", "/metrics"})  # numbers and states, no text of anybody
COUNTED = OPEN | {"/", "/v1/models", "/v1/completions", "/v1/chat/completions"}
UPLOAD_S = 60.0  # longest that a body may take to come
ACCESS = logging.getLogger("ssd_lab.serve.access")


def error_response(error: ApiError) -> JSONResponse:
    """An error as it is sent."""
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)


class KeyGuard:
    """Lets through who knows a key: as a bearer token, or as the password that a browser asks for."""

    def __init__(self, app: App, keys: tuple[str, ...]) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection or request."""
        if scope["type"] != "http" or scope["path"] in OPEN or self._knows(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        error = ApiError(
            401,
            "no valid API key was given: send it as Authorization: Bearer KEY",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer" if scope["path"].startswith("/v1/") else 'Basic realm="ssd-lab"'},
        )
        await error_response(error)(scope, receive, send)

    def _knows(self, headers: Headers) -> bool:
        """Compared with every key, each in a time that does not depend on how much of it is right."""
        scheme, _, told = headers.get("authorization", "").partition(" ")
        given = told.strip().encode("latin-1", "replace")
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != "bearer":
            return False
        return sum([hmac.compare_digest(given, key) for key in self._keys]) > 0


class SizeGuard:
    """Reads the body, and refuses one that is too large before all of it is there, or that does not come in time."""

    def __init__(self, app: App, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = Headers(scope=scope).get("content-length", "")
        try:
            async with asyncio.timeout(UPLOAD_S):
                body = None if told.isdigit() and int(told) > self._max_bytes else await self._read(receive)
        except TimeoutError:
            error = ApiError(408, f"the body was not there within {UPLOAD_S:g} s: send it faster", code="timeout")
            await error_response(error)(scope, receive, send)
            return
        if body is None:
            error = ApiError(413, f"the body is larger than {self._max_bytes} bytes: send less", code="body_too_large")
            await error_response(error)(scope, receive, send)
            return
        unread: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replayed() -> MutableMapping[str, Any]:
            return unread.pop() if unread else await receive()

        await self._app(scope, replayed, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """All of it; None if it is too large."""
        body = bytearray()
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)  # also where the client has left: what it sent is no JSON then
            if len(body) > self._max_bytes:
                return None
        return bytes(body)


class AccessLog:
    """Gives every request an id and writes one JSON line when it is answered: no text, no key.

    count: told the path and the status of every answer.
    """

    def __init__(self, app: App, count: Callable[[str, int], None]) -> None:
        self._app, self._count = app, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun_s, request_id, status = time.perf_counter(), secrets.token_hex(8), 500
        scope.setdefault("state", {})["log"] = extra = {"id": request_id}

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            self._count(scope["path"] if scope["path"] in COUNTED else "other", status)
            line = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "client": (scope.get("client") or ("",))[0],
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "seconds": round(time.perf_counter() - begun_s, 6),
            }
            ACCESS.info(json.dumps({**line, **extra}, ensure_ascii=True))
