"""The application in front of replicas: it hands each request to one of them, and asks all of them for numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fastapi import FastAPI, Request
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.responses import HTMLResponse, JSONResponse, Response

from ssd_lab.serve.app import add_errors, guarded
from ssd_lab.serve.config import ServeConfig
from ssd_lab.serve.errors import ApiError
from ssd_lab.serve.live import PAGE_HEADERS, TRACE_HEADERS
from ssd_lab.serve.metrics import CONTENT_TYPE, ServerMetrics
from ssd_lab.serve.replicas.forwarding import Forward, Replicas
from ssd_lab.serve.replicas.prefixes import marks_of
from ssd_lab.serve.replicas.replica import Asked
from ssd_lab.serve.served import ServedModels

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class FrontState:
    """What the front knows of itself. Of the event loop."""

    def __init__(self, replicas: Replicas, config: ServeConfig) -> None:
        self.replicas, self.config = replicas, config
        self.metrics = ServerMetrics(ServedModels([]))  # of answers; the engines' are the replicas'
        self.is_stopping = False
        self._running: set[Forward] = set()

    @property
    def under_way(self) -> int:
        """Requests that no replica is done with."""
        return len(self._running)

    def cancel_running(self) -> None:
        """End what is left: the clients are told."""
        for forward in list(self._running):
            forward.stop(_stopping())

    abandon_running = cancel_running  # of which replicas are not asked

    def check_open(self) -> None:
        """Raise ApiError (503) if no request is taken any more."""
        if self.is_stopping:
            raise _stopping()

    async def forward(self, request: Request) -> Forward:
        """To a replica."""
        body = await request.body()
        scope = request.scope
        asked = Asked(request.method, scope["path"], scope["query_string"], tuple(scope["headers"]), body)
        answers = self.replicas.ask(asked, marks_of(body) if request.method == "POST" else ())
        forward = Forward(answers, self.config.request_timeout_s, self._running.discard)
        self._running.add(forward)
        return forward

    async def alive(self) -> int:
        """Replicas that answer and can."""
        return sum(trouble is None for trouble in await self.replicas.everyone("trouble"))


def make_front(replicas: Replicas, config: ServeConfig, keys: Sequence[str] = ()) -> FastAPI:
    """An application as `make_app` makes it, whose engines are elsewhere."""
    state = FrontState(replicas, config)
    app = FastAPI(title="ssd_lab", docs_url=None, redoc_url=None, openapi_url=None)  # a replica describes itself
    app.state.server = state
    _add_states(app, state)
    if config.page:
        _add_live(app, state)

    @app.api_route("/{path:path}", methods=list(METHODS))
    async def anything(request: Request) -> Response:
        if request.method == "POST":
            state.check_open()
        return await state.forward(request)

    add_errors(app)
    return guarded(app, config, keys, state.metrics.response)


def _add_states(app: FastAPI, state: FrontState) -> None:
    @app.get("/health")
    async def health() -> JSONResponse:
        alive = await state.alive()
        if alive < state.replicas.wanted:
            raise ApiError(503, f"{alive} of {state.replicas.wanted} replicas answer", code="replicas_lost")
        return JSONResponse({"status": "ok", "replicas": alive})

    @app.get("/ready")
    async def ready() -> JSONResponse:
        state.check_open()
        if not (alive := await state.alive()):
            raise ApiError(503, "no replica answers", code="replicas_lost", headers={"Retry-After": "5"})
        return JSONResponse({"status": "ready", "replicas": alive})

    @app.get("/metrics")
    async def metrics() -> Response:
        texts = [state.metrics.text(), *await state.replicas.everyone("numbers")]
        return Response(await asyncio.to_thread(together, texts), headers={"Content-Type": CONTENT_TYPE})


def _add_live(app: FastAPI, state: FrontState) -> None:
    @app.get("/live/requests")
    async def table() -> JSONResponse:
        rows = [row for rows in await state.replicas.everyone("table") for row in rows]
        rows.sort(key=lambda row: (row["running"], row["begun"]), reverse=True)
        shown = state.config.recent + sum(row["running"] for row in rows)
        return JSONResponse({"requests": rows[:shown]}, headers={"Cache-Control": "no-store"})

    @app.get("/live/requests/{name}")
    async def rounds(name: str) -> HTMLResponse:
        return HTMLResponse(await found("rounds", name), headers=PAGE_HEADERS)

    @app.get("/live/requests/{name}/trace")
    async def trace(name: str) -> Response:
        return Response(await found("trace", name), headers=TRACE_HEADERS)

    async def found(method: str, name: str) -> Any:
        told = await state.replicas.everyone(method, name)
        status, what = min(told, key=lambda each: each[0], default=(503, "no replica answers"))
        if status != 200:
            raise ApiError(status, what, code="no_rounds")
        return what


def together(texts: Iterable[bytes]) -> bytes:
    """Numbers of several processes as one text: their labels tell them apart."""
    families: dict[str, Metric] = {}
    for text in texts:
        for family in text_string_to_metric_families(text.decode()):
            known = families.setdefault(family.name, family)
            if known is not family:
                known.samples += family.samples
    registry = CollectorRegistry()
    registry.register(_Given(families.values()))
    return generate_latest(registry)


class _Given(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def _stopping() -> ApiError:
    return ApiError(503, "the server is stopping: ask another one", code="stopping", headers={"Retry-After": "5"})
