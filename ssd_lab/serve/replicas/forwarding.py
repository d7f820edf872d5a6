"""One request handed to a replica: what it sends is passed on as it comes, and it is told when the client leaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from starlette.responses import Response

from ssd_lab.serve.errors import ApiError
from ssd_lab.serve.guard import error_response
from ssd_lab.serve.replicas.replica import NOTED, Asked, Message

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
LATE_S = 90.0  # beyond a request's own limit, which its replica sees to


class Answers(Protocol):
    """Messages of a replica, as they come."""

    def __aiter__(self) -> AsyncIterator[list[Message]]:
        """Some at a time."""

    def cancel(self) -> None:
        """No more are wanted."""


class Replicas(ABC):
    """Copies of one application. wanted: how many there should be."""

    wanted: int

    @abstractmethod
    def ask(self, asked: Asked, marks: tuple[int, ...]) -> Answers:
        """Of one of them, chosen by how the prompt begins and by their queues."""

    @abstractmethod
    async def everyone(self, method: str, *arguments: Any) -> list[Any]:
        """What a method of each one returns; those that do not answer are left out."""


class Forward(Response):
    """The answer of a replica. tell: called when it has ended."""

    def __init__(self, answers: Answers, limit_s: float, tell: Callable[[Forward], None]) -> None:
        super().__init__()
        self._answers, self._limit_s, self._tell = answers, limit_s, tell
        self._error: ApiError | None = None
        self._began: Message | None = None

    def stop(self, error: ApiError | None) -> None:
        """Ask no more of the replica. error: what the client is told; None: nobody is there to be told."""
        self._error = error
        self._answers.cancel()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Send it all, or what became of it."""
        watching = asyncio.create_task(self._watch(receive))
        try:
            async with asyncio.timeout(self._limit_s + LATE_S):
                await self._pass_on(scope, send)
        except TimeoutError:
            self.stop(ApiError(504, f"no replica answered within {self._limit_s:g} s", code="timeout"))
        except Exception as error:  # whatever a lost replica raises: the others go on
            if not watching.done():
                self._error = self._error or _lost(error)
        finally:
            watching.cancel()
            self._answers.cancel()
            self._tell(self)
        if self._error is not None:
            await self._say(self._error, scope, receive, send)

    async def _pass_on(self, scope: Message, send: Send) -> None:
        async for messages in self._answers:
            for message in messages:
                if message["type"] == NOTED:
                    scope["state"]["log"] |= {name: value for name, value in message.items() if name != "type"}
                else:
                    self._began = message if self._began is None else self._began
                    await send(message)

    async def _watch(self, receive: Receive) -> None:
        """Until the client leaves, or all is sent."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.stop(None)

    async def _say(self, error: ApiError, scope: Message, receive: Receive, send: Send) -> None:
        if self._began is None:
            await error_response(error)(scope, receive, send)
        elif any(value.startswith(b"text/event-stream") for _, value in self._began["headers"]):
            event = f"data: {json.dumps(error.body())}\n\ndata: [DONE]\n\n".encode()
            with contextlib.suppress(OSError):
                await send({"type": "http.response.body", "body": event, "more_body": False})


def _lost(error: Exception) -> ApiError:
    return ApiError(
        503,
        f"the replica that answered was lost ({type(error).__name__}): ask again, the others go on",
        code="replica_lost",
        headers={"Retry-After": "1"},
    )
