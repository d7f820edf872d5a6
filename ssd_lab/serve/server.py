"""The process around the application: the socket, signals, and how it stops."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Protocol

import uvicorn
from fastapi import FastAPI

from ssd_lab.errors import ConfigError
from ssd_lab.serve.config import ServeConfig
from ssd_lab.serve.connection import Connection

LOOK_S = 0.05  # for the last chunks to leave
LAST_S = 5.0  # longest wait, after the grace, for an engine to end what is left
START_S = 30.0  # longest that an application takes to start, its models being loaded


def bound(config: ServeConfig) -> socket.socket:
    """A socket at the server's address, which nobody can connect to yet. Raises ConfigError if it is taken."""
    try:
        with ExitStack() as unfinished:
            found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)
            family, kind, protocol, _, address = found[0]
            made = unfinished.enter_context(socket.socket(family, kind, protocol))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            unfinished.pop_all()
    except OSError as error:
        raise _taken(config, error) from error
    return made


def _taken(config: ServeConfig, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot listen on {config.host}, port {config.port} ({error}): give another host or port (0: a free one)"
    )


def url_of(listening: socket.socket) -> str:
    """Where a browser of this machine finds it."""
    host, port = listening.getsockname()[:2]
    local = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{local}:{port}"


class Stoppable(Protocol):
    """What a server asks of its application when it is told to stop: its `app.state.server`."""

    is_stopping: bool

    @property
    def under_way(self) -> int:
        """How much has not ended."""

    def cancel_running(self) -> None:
        """End it: the clients are told."""

    def abandon_running(self) -> None:
        """Tell them so now: whoever should end it does not answer."""


class GracefulServer(uvicorn.Server):
    """Told to stop, it refuses what is new (503) and ends when running answers are finished, or after the grace; told
    twice, the grace is over. say: hears in words what it does.
    """

    def __init__(
        self,
        app: FastAPI,
        config: ServeConfig,
        on_start: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",  # this and h11 also where faster ones are installed: the same server everywhere
                http=Connection,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._state: Stoppable = app.state.server
        self._grace_s = config.grace_s
        self._on_start, self._say = on_start, say
        self._is_told = self._is_cancelled = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """From here on requests are answered."""
        await super().startup(sockets)
        if self.started:
            self._on_start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came. Uvicorn would raise it once more at the end, and leave nobody time to clean up."""
        if self._state.is_stopping:
            self._stop_at_s = time.monotonic()
        else:
            self.stop_soon()

    def stop_soon(self) -> None:
        """Take nothing new from now on."""
        self._stop_at_s = time.monotonic() + self._grace_s
        self._state.is_stopping = True

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second: is it time to end?"""
        if self._state.is_stopping:
            await self._go_on_stopping(time.monotonic() - self._stop_at_s)
        return await super().on_tick(counter)

    async def _go_on_stopping(self, late_s: float) -> None:
        if self._state.under_way and not self._is_told:
            self._is_told = True
            self._say(f"stopping: answers have {max(0.0, -late_s):.0f} s to finish, a second signal ends them at once")
        if late_s >= 0 and not self._is_cancelled:
            self._is_cancelled = True
            if self._state.under_way:
                self._say("stopping now: what is left is cut off")
            self._state.cancel_running()
        if late_s >= LAST_S:
            self._state.abandon_running()
        if not self._state.under_way or late_s >= LAST_S:
            await asyncio.sleep(LOOK_S)  # the last chunks are on their way
            self.should_exit = True


def serve(
    app: FastAPI,
    config: ServeConfig,
    listening: socket.socket,
    on_start: Callable[[], None],
    say: Callable[[str], None],
) -> None:
    """Until it is told to stop, by Ctrl-C or SIGTERM. on_start: called when requests are answered; say: hears of its
    end in words. Raises ConfigError if another server came first.
    """
    try:
        listening.listen()  # two servers can be bound, while both load, and one can listen
    except OSError as error:
        raise _taken(config, error) from error
    GracefulServer(app, config, on_start, say).run(sockets=[listening])


@contextmanager
def running(app: FastAPI, config: ServeConfig) -> Iterator[str]:
    """A server on a thread of this process, for as long as the block runs: its URL. For tests and notebooks."""
    listening = bound(config)
    server = GracefulServer(app, config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="ssd_lab-serve", daemon=True)
    thread.start()
    end_s = time.monotonic() + START_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > end_s:
            raise ConfigError(f"the server did not start within {START_S:g} s: see its log")
        time.sleep(0.01)
    try:
        yield url_of(listening)
    finally:
        server.stop_soon()
        thread.join(config.grace_s + START_S)
        listening.close()
