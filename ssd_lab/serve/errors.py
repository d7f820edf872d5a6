"""Errors in the shape that OpenAI's clients read: a message, its type, the field it is about, and a code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ssd_lab.errors import CacheCapacityError, PromptError, SsdLabError

INVALID, OVERLOADED, SERVER = "invalid_request_error", "overloaded_error", "server_error"
LONGEST = 1_000  # characters of a message: what a client sent is in some, and is not sent back whole
_OF_STATUS = {401: "authentication_error", 403: "permission_error", 429: OVERLOADED, 503: OVERLOADED}


class ApiError(Exception):
    """Answers a request with this status. param: the field it is about, as `messages[0].content`."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code = status, code
        self.message, self.param = _cut(message), None if param is None else _cut(param)
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """What is sent."""
        kind = _OF_STATUS.get(self.status, INVALID if self.status < 500 else SERVER)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text)} characters)"


def of_validation(problems: Sequence[Any]) -> ApiError:
    """From what pydantic found wrong with a body: the first problem, and how many more there are."""
    first = problems[0]
    if first["type"] == "json_invalid":
        return ApiError(
            400, f"the body is no JSON: {first.get('ctx', {}).get('error', first['msg'])}", code="invalid_json"
        )
    context = first.get("ctx") or {}
    param = context.get("param") or _place(first["loc"])
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "this server knows no such field, and drops none: leave it out"
    elif first["type"] == "missing" and param is None:
        message = "the body is missing or no JSON object: send one with the header Content-Type: application/json"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    code = {"unsupported": "unsupported_field", "extra_forbidden": "unknown_field"}.get(first["type"], "invalid_value")
    return ApiError(400, f"{param}: {message}{more}" if param else f"{message}{more}", param=param, code=code)


def of_refusal(error: SsdLabError, fields: Iterable[str], *, prompt: str) -> ApiError:
    """From an error that the engine raised before it ran anything. fields: of the request; prompt: the one that holds
    the text.
    """
    message = str(error)
    if isinstance(error, CacheCapacityError):
        param = "max_tokens"
    elif isinstance(error, PromptError):
        param = prompt
    else:
        named = (name for name in sorted(fields, key=len, reverse=True) if message.startswith(name))
        param = next(named, prompt)
    return ApiError(400, message, param=param, code="invalid_value")


def of_failure(error: BaseException) -> ApiError:
    """From what ended a request that was running."""
    return ApiError(500, f"{type(error).__name__}: {error}", code="engine_error")


def _place(loc: Sequence[str | int]) -> str | None:
    """A field's place in a body, without pydantic's names of the branches of a union."""
    place = ""
    for part in loc[1:]:
        if isinstance(part, int):
            place += f"[{part}]"
        elif part.isidentifier():
            place += f".{part}" if place else part
    return place or None
