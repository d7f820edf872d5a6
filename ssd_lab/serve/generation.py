"""From a job to the response: all of it at once, or as a stream; either ends when the client leaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import JSONResponse, Response

from ssd_lab.errors import CacheCapacityError, EngineStoppedError, SsdLabError
from ssd_lab.serve.answering import Answering
from ssd_lab.serve.answers import Answer, Choice
from ssd_lab.serve.counts import metrics, usage
from ssd_lab.serve.echo import echoed
from ssd_lab.serve.errors import ApiError
from ssd_lab.serve.job import Job

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
SLOW_READER_S = 60.0  # for what is left of a stream when its text has ended
_STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def begin(job: Job, answering: Answering) -> None:
    """Hand the job to its engine. Raises ApiError."""
    try:
        answering.begin(job.prompts, job.params, job.expected)
    except EngineStoppedError as error:
        raise ApiError(503, str(error), code="engine_ended") from error
    except SsdLabError as error:
        raise job.refusal(error) from error


async def respond(job: Job, answering: Answering, receive: Receive) -> Response:
    """Answer a job that was begun. receive: of the request, whose body was read: what comes next is that the client
    leaves. Raises ApiError.
    """
    if job.body.stream:
        return Stream(job, answering)
    async with _watched(receive, answering):
        answer, choices = Answer(job), await _choices(job, answering)
        async for piece in answering.pieces():
            if job.generates:
                choices[piece.index].add(piece)
    assert answering.submission is not None
    body = answer.whole(choices, usage(job, answering.submission), metrics(job, answering.submission))
    return JSONResponse(body)


class Stream(Response):
    """Server-sent events: a chunk for each piece, and `[DONE]`. What fails meanwhile is told in an event."""

    media_type = "text/event-stream"

    def __init__(self, job: Job, answering: Answering) -> None:
        super().__init__(headers=_STREAM_HEADERS)
        del self.headers["content-length"]
        self._job, self._answering = job, answering

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Send it all."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        with contextlib.suppress(TimeoutError):  # the text ended in time, and its reader did not take it
            async with asyncio.timeout(self._answering.limit_s + SLOW_READER_S), _watched(receive, self._answering):
                async for chunk in self._events():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._chunks():
                yield _event(chunk)
        except ApiError as error:
            yield _event(error.body())
        yield b"data: [DONE]\n\n"

    async def _chunks(self) -> AsyncIterator[dict[str, Any]]:
        job, answering = self._job, self._answering
        answer, choices = Answer(job), await _choices(job, answering)
        for index, choice in enumerate(choices):
            if (opening := answer.opening(index, choice)) is not None:
                yield opening
        async for piece in answering.pieces():
            if job.generates:
                yield answer.piece(piece)
        assert answering.submission is not None
        if job.body.include_usage:
            yield answer.last(usage(job, answering.submission), metrics(job, answering.submission))


async def _choices(job: Job, answering: Answering) -> list[Choice]:
    """Each text before its first piece."""
    assert answering.submission is not None
    if not job.echo:
        return [Choice() for _ in job.prompts]
    try:
        choices = await asyncio.to_thread(echoed, job, answering.submission)
    except CacheCapacityError as error:
        raise ApiError(503, f"no room to score the prompt now: {error}", headers={"Retry-After": "1"}) from error
    for choice in choices:
        choice.finish_reason = None if job.generates else "length"
    return choices


@contextlib.asynccontextmanager
async def _watched(receive: Receive, answering: Answering) -> AsyncIterator[None]:
    """Within this the texts are cancelled if the client leaves, and on the way out whatever of them is left."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        answering.leave()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        answering.cancel()


def _event(document: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(document, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
