"""What starts processes on another host: a process of `torchrun` that waits there, and how the first one asks it.

A question is a connection of its own: one line of JSON, and one in answer. The one that starts a process then becomes
the connection of that process, which is as any child of the waiting one: fresh, and gone when it ends.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ssd_lab.links.child_process import END_S, ChildProcess, WorkerProcess

ANSWER_S = 10.0  # for an answer, and for a line to come in
LONGEST = 1 << 16  # bytes of a line
CLOCK_TRIPS = 5
END_POLL_S = 0.05  # between two looks at whether the server is to end
GONE = "gone, with the process of torchrun that started it, or with its host"


@dataclass(frozen=True)
class Launcher:
    """Another process of this run. It starts processes for whoever knows its token."""

    rank: int
    address: str
    port: int
    token: str

    shares_memory = False

    def start(self, *, threads: int | None, shared: Sequence[int] = ()) -> WorkerProcess:
        """Raises OSError where it is not to be reached, or starts nothing."""
        assert not shared, "memory is shared on one host"
        return RemoteProcess(self, threads)

    def ask(self, do: str, limit_s: float = ANSWER_S, **more: Any) -> dict[str, Any]:
        """Raises OSError where nobody answers."""
        connection, reply = self.connect(do, limit_s, **more)
        connection.close()
        return reply

    def connect(self, do: str, limit_s: float = ANSWER_S, **more: Any) -> tuple[socket.socket, dict[str, Any]]:
        """As `ask`, with the connection."""
        with ExitStack() as undone:
            connection = socket.create_connection((self.address, self.port), limit_s)
            undone.callback(connection.close)
            prepared(connection)
            connection.sendall(json.dumps({"token": self.token, "do": do, **more}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                line = lines.readline(LONGEST)
            if not line:
                raise ConnectionError(f"process {self.rank} of torchrun closed the connection")
            reply: dict[str, Any] = json.loads(line)
            if "error" in reply:
                raise OSError(f"process {self.rank} of torchrun could not do it: {reply['error']}")
            undone.pop_all()
        return connection, reply


class RemoteProcess:
    """As `ChildProcess`, a child of a launcher."""

    def __init__(self, launcher: Launcher, threads: int | None) -> None:
        self._launcher = launcher
        self.connection, reply = launcher.connect("start", threads=threads)
        self.pid: int = reply["pid"]
        self.clock_offset_s = self._measured_offset_s()

    @property
    def is_running(self) -> bool:
        """Has it not ended yet, and can it be known?"""
        try:
            return bool(self._launcher.ask("look", pid=self.pid)["is_running"])
        except OSError:
            return False

    def started(self) -> None:
        """See `ChildProcess`; its errors go where the launcher writes its own."""
        with suppress(OSError):
            self._launcher.ask("started", pid=self.pid)

    def how_it_ended(self) -> str:
        """See `ChildProcess`."""
        try:
            return str(self._launcher.ask("how it ended", pid=self.pid)["text"])
        except OSError:
            return GONE

    def kill(self) -> None:
        """See `ChildProcess`."""
        with suppress(OSError):
            self._launcher.ask("kill", pid=self.pid)

    def end(self) -> None:
        """See `ChildProcess`."""
        with suppress(OSError):
            self._launcher.ask("end", 2 * END_S + ANSWER_S, pid=self.pid)

    def _measured_offset_s(self) -> float:
        """What must be added to the other host's clock to have this one's: by the fastest of some questions, whose
        answer is taken to have been written in the middle.
        """
        found = []
        for _ in range(CLOCK_TRIPS):
            sent_s = time.perf_counter()
            told_s = self._launcher.ask("time")["time_s"]
            received_s = time.perf_counter()
            found.append((received_s - sent_s, (sent_s + received_s) / 2 - told_s))
        return min(found)[1]


class LauncherServer(socketserver.ThreadingTCPServer):
    """Answers a `Launcher`. Closing it ends what it started."""

    daemon_threads = True

    def __init__(self, address: str) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.token = secrets.token_hex(16)
        self._children: dict[int, ChildProcess] = {}
        super().__init__((address, 0), _Question)

    @contextmanager
    def at_work(self, rank: int) -> Iterator[Launcher]:
        """Within this it answers, in a thread; how others reach it."""
        threading.Thread(target=self.serve_forever, args=(END_POLL_S,), daemon=True).start()
        try:
            address, port = self.server_address[:2]
            yield Launcher(rank, str(address), port, self.token)
        finally:
            self.shutdown()

    def do(self, connection: socket.socket, do: str, pid: int = 0, threads: int | None = None) -> dict[str, Any]:
        """The answer to a question."""
        match do:
            case "start":
                child = ChildProcess(threads=threads, theirs=connection.dup())
                self._children[child.pid] = child
                return {"pid": child.pid}
            case "time":
                return {"time_s": time.perf_counter()}
        child = self._children[pid]
        match do:
            case "look":
                return {"is_running": child.is_running}
            case "started":
                child.started()
            case "how it ended":
                return {"text": child.how_it_ended()}
            case "kill":
                child.kill()
            case "end":
                child.end()
                del self._children[pid]
        return {}

    def server_close(self) -> None:
        """Also end what was started."""
        super().server_close()
        with ExitStack() as closing:
            for child in self._children.values():
                closing.callback(child.end)
                closing.callback(child.kill)

    def shutdown_request(self, request: Any) -> None:
        """Close this copy; the connection goes on for a process that was started with it."""
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke, or was none of ours, is nobody's matter here."""


class _Question(socketserver.StreamRequestHandler):
    timeout = ANSWER_S
    server: LauncherServer

    def handle(self) -> None:
        question = json.loads(self.rfile.readline(LONGEST))
        if not hmac.compare_digest(str(question.pop("token", "")), self.server.token):
            return
        prepared(self.request)
        try:
            reply = self.server.do(self.request, **question)
        except (OSError, KeyError) as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        self.wfile.write(json.dumps(reply).encode() + b"\n")


def prepared(connection: socket.socket) -> None:
    """Small messages leave at once, and a host that is gone is noticed within ten seconds."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 4), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 9_000)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
