"""One replica: engines of its own, in a process of its own, and the application that asks them, without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from ssd_lab.errors import SsdLabError
from ssd_lab.serve.app import unguarded
from ssd_lab.serve.config import ServeConfig
from ssd_lab.serve.errors import ApiError
from ssd_lab.serve.live import Entry, rounds_page, trace_file
from ssd_lab.serve.served import ServedModels, load_served
from ssd_lab.serve.state import ServerState
from ssd_lab.strategies.importing import import_strategies

Message = MutableMapping[str, Any]  # of ASGI
NOTED = "ssd_lab.noted"  # type of the first and the last message: what the access log says of a request


@dataclass(frozen=True)
class Load:
    """What every replica loads, as data that any process reads. fields: of `load_served`; imports: modules of
    strategies.
    """

    fields: dict[str, Any]
    config: ServeConfig
    warm_up: bool = True
    imports: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """A request that was read. headers: as ASGI has them."""

    method: str
    path: str
    query: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""

    def scope(self) -> dict[str, Any]:
        """For an ASGI application."""
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": self.method,
            "path": self.path,
            "raw_path": self.path.encode(),
            "root_path": "",
            "query_string": self.query,
            "headers": list(self.headers),
            "state": {"log": {}},
        }


@dataclass
class _Conversation:
    """One request in the application. sent: what it sent so far and nobody took; None: it has ended."""

    asked: Asked
    sent: asyncio.Queue[Message | None] = field(default_factory=asyncio.Queue)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    is_read: bool = False

    async def receive(self) -> Message:
        """The body, then that the client has left, once it has."""
        if not self.is_read:
            self.is_read = True
            return {"type": "http.request", "body": self.asked.body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def run(self, app: Any) -> None:
        """Let the application answer."""
        scope = self.asked.scope()
        try:
            await app(scope, self.receive, self.sent.put)
        finally:
            self.sent.put_nowait({"type": NOTED, **scope["state"]["log"]})
            self.sent.put_nowait(None)

    async def taken(self) -> list[Message | None]:
        """All that was sent meanwhile, one message at least."""
        messages = [await self.sent.get()]
        while not self.sent.empty():
            messages.append(self.sent.get_nowait())
        return messages


class Replica:
    """What Ray Serve makes as often as there are replicas. rank: its number.

    Models that cannot be loaded are no reason to try again and again: `failure` says why not.
    """

    def __init__(self, load: Load, rank: int | None = None) -> None:
        self.failure: str | None = None
        self._models = ServedModels([])
        self._talks: set[asyncio.Task[None]] = set()
        try:
            import_strategies(load.imports)
            self._models = load_served(max_queue=load.config.max_queue, **load.fields)
            if load.warm_up:
                for model in self._models:
                    model.llm.warm_up()
        except SsdLabError as error:
            self.failure = str(error)
        self._rank = _rank() if rank is None else rank
        self._state = ServerState(self._models, load.config, str(self._rank))
        self._app = unguarded(self._state)

    async def answer(self, asked: Asked, marks: tuple[int, ...] = ()) -> AsyncIterator[list[Message]]:
        """What the application sends, as it comes. marks: for the router, which chose this replica by them."""
        talk = _Conversation(asked)
        running = asyncio.create_task(talk.run(self._app))
        self._talks.add(running)  # nobody else holds it
        running.add_done_callback(self._talks.discard)
        try:
            yield [{"type": NOTED, "replica": self._rank}]
            while (messages := await talk.taken())[-1] is not None:
                yield [message for message in messages if message is not None]
            yield [message for message in messages if message is not None]
        finally:
            talk.left.set()

    async def names(self) -> list[str]:
        """Of its models, as requests have them."""
        return [card["id"] for card in self._models.cards()]

    async def trouble(self) -> str | None:
        """Why it cannot answer; None if it can."""
        return self.failure

    async def numbers(self) -> bytes:
        """For Prometheus."""
        return await asyncio.to_thread(self._state.metrics.text)

    async def table(self) -> list[dict[str, Any]]:
        """The requests of the live page."""
        return [{**row, "replica": self._rank} for row in self._state.live.table()]

    async def rounds(self, name: str) -> tuple[int, str]:
        """200 and the views of a request, or another status and why there are none."""
        return await self._of_request(rounds_page, name)

    async def trace(self, name: str) -> tuple[int, Any]:
        """The same for the trace."""
        return await self._of_request(trace_file, name)

    async def _of_request(self, make: Callable[[Entry], Any], name: str) -> tuple[int, Any]:
        try:
            return 200, await asyncio.to_thread(make, self._state.live.find(name))
        except ApiError as error:
            return error.status, error.message

    def check_health(self) -> None:
        """Ray Serve calls this every few seconds, and makes a new replica where it raises."""
        self._state.check_alive()

    def __del__(self) -> None:
        """Ray Serve calls this when it ends a replica."""
        self._models.close()


def _rank() -> int:
    from ray import serve

    return int(serve.get_replica_context().rank.rank)
