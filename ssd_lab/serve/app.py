"""The application: which path answers what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response

from ssd_lab import __version__
from ssd_lab.serve.answering import Answering
from ssd_lab.serve.chat import ChatRequest
from ssd_lab.serve.completions import CompletionRequest
from ssd_lab.serve.config import ServeConfig
from ssd_lab.serve.description import MESSAGE, TEXT, answer_schema, complete
from ssd_lab.serve.errors import ApiError, of_validation
from ssd_lab.serve.generation import begin, respond
from ssd_lab.serve.guard import AccessLog, KeyGuard, SizeGuard, error_response
from ssd_lab.serve.job import Job, chat_job, completion_job
from ssd_lab.serve.live import PAGE, PAGE_HEADERS, TRACE_HEADERS, rounds_page, trace_file
from ssd_lab.serve.metrics import CONTENT_TYPE
from ssd_lab.serve.served import Served, ServedModels
from ssd_lab.serve.state import ServerState


def make_app(models: ServedModels, config: ServeConfig, keys: Sequence[str] = ()) -> FastAPI:
    """An ASGI application over loaded models, which it closes when it ends. keys: who may ask; none: everybody."""
    state = ServerState(models, config)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            models.close()

    return guarded(unguarded(state, lifespan), config, keys, state.metrics.response)


def unguarded(state: ServerState, lifespan: Any = None) -> FastAPI:
    """What answers requests that may be answered: no keys, no sizes, no log, which another process sees to."""
    app = FastAPI(
        title="ssd_lab",
        version=__version__,
        description="Text from language models by speculative decoding, behind OpenAI's API.",
        lifespan=lifespan,
        docs_url=None,  # those pages fetch scripts from elsewhere
        redoc_url=None,
    )
    app.state.server = state
    _add_generation(app, state)
    _add_states(app, state)
    if state.config.page:
        _add_page(app, state)
    add_errors(app)
    complete(app.openapi(), state.models, state.config)  # made once and kept
    return app


def guarded(app: FastAPI, config: ServeConfig, keys: Sequence[str], count: Callable[[str, int], None]) -> FastAPI:
    """The application with what every request passes on its way in. count: told the path and status of every answer."""
    app.add_middleware(SizeGuard, max_bytes=config.max_body_bytes)
    if keys:
        app.add_middleware(KeyGuard, keys=tuple(keys))
    app.add_middleware(AccessLog, count=count)
    return app


def _add_generation(app: FastAPI, state: ServerState) -> None:
    models, config = state.models, state.config

    @app.get("/v1/models", summary="The models that can be asked for", responses=_errors(401))
    async def list_models() -> JSONResponse:
        return JSONResponse({"object": "list", "data": models.cards()})

    @app.get("/v1/models/{name:path}", summary="One model", responses=_errors(401, 404))
    async def one_model(name: str) -> JSONResponse:
        return JSONResponse(models.find(name).card(name))

    @app.post("/v1/completions", summary="Continue prompts", responses=_generated("text_completion", TEXT))
    async def completions(body: CompletionRequest, request: Request) -> Response:
        served = state.open_for(body.model)
        return await _answer(await completion_job(body, served, config), served, request)

    @app.post("/v1/chat/completions", summary="Answer a conversation", responses=_generated("chat.completion", MESSAGE))
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        served = state.open_for(body.model)
        return await _answer(await chat_job(body, served, config), served, request)

    async def _answer(job: Job, served: Served, request: Request) -> Response:
        answering = Answering(served, state.mailbox, config.request_timeout_s, state)
        log = request.scope["state"]["log"]
        log |= {"model": served.name, "stream": bool(job.body.stream)}
        answering.noted = log
        begin(job, answering)
        state.live.begin(job, answering)
        return await respond(job, answering, request.receive)


def _add_states(app: FastAPI, state: ServerState) -> None:
    @app.get("/health", summary="Is every engine alive?", responses=_errors(503))
    async def health() -> JSONResponse:
        state.check_alive()
        return JSONResponse({"status": "ok"})

    @app.get("/ready", summary="Are requests taken?", responses=_errors(503))
    async def ready() -> JSONResponse:
        state.check_alive()
        state.check_open()
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", summary="Numbers for Prometheus", responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        return Response(await asyncio.to_thread(state.metrics.text), headers={"Content-Type": CONTENT_TYPE})


def _add_page(app: FastAPI, state: ServerState) -> None:
    """For people: no part of the API's description."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE, headers=PAGE_HEADERS, media_type="text/html")

    @app.get("/live/requests", include_in_schema=False)
    async def table() -> JSONResponse:
        return JSONResponse({"requests": state.live.table()}, headers={"Cache-Control": "no-store"})

    @app.get("/live/requests/{name}", include_in_schema=False)
    async def rounds(name: str) -> HTMLResponse:
        entry = state.live.find(name)
        return HTMLResponse(await asyncio.to_thread(rounds_page, entry), headers=PAGE_HEADERS)

    @app.get("/live/requests/{name}/trace", include_in_schema=False)
    async def trace(name: str) -> Response:
        entry = state.live.find(name)
        return Response(await asyncio.to_thread(trace_file, entry), headers=TRACE_HEADERS)


def add_errors(app: FastAPI) -> None:
    """Every error leaves in one shape."""

    @app.exception_handler(ApiError)
    async def known(_: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(of_validation(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = f"{error.detail}: {request.method} {request.url.path}"
        if error.status_code == 400:  # what FastAPI says of a body that no parser takes
            message = (
                "the body cannot be read as JSON: it is nested too deeply, or is no text, or has a number too long"
            )
        return error_response(ApiError(error.status_code, message, headers=dict(error.headers or {})))

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> Response:
        return error_response(ApiError(500, f"{type(error).__name__}: {error}", code="internal_error"))


_ERROR_SCHEMA = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
_REASONS = {
    400: "The request says something that cannot be done; `param` is the field",
    401: "No valid API key",
    404: "No such model",
    408: "The body did not come in time",
    413: "The body is too large",
    429: "Too much is waiting; Retry-After says when to come again",
    500: "The engine failed",
    503: "The server is stopping, or an engine has ended",
    504: "The request took too long",
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/json": {"schema": _ERROR_SCHEMA}}
    return {status: {"description": _REASONS[status], "content": content} for status in statuses}


def _generated(kind: str, choice: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    whole = {"application/json": {"schema": answer_schema(kind, choice)}}
    stream = {"text/event-stream": {"schema": {"description": "Events with a chunk each, then `[DONE]`"}}}
    done = {"description": "The text, or a stream of it", "content": {**whole, **stream}}
    errors = _errors(400, 401, 404, 408, 413, 429, 500, 503, 504)
    return {200: done, **errors, 422: {"description": "Never: see 400"}}
