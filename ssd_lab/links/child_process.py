"""A child interpreter for the draft: how it is started, what it said when it would not start, and how it ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from typing import IO, Protocol

from ssd_lab.links import draft_process

END_S = 5.0  # for a child that was told to end, and again for one that was killed
LAST_LINES = 8


class WorkerProcess(Protocol):
    """A process that serves at the other end of a connection, as whoever started it holds it."""

    connection: socket.socket

    @property
    def pid(self) -> int:
        """Its process id, on its host."""

    @property
    def is_running(self) -> bool:
        """Has it not ended yet?"""

    @property
    def clock_offset_s(self) -> float:
        """What must be added to its clock to have this process's."""

    def started(self) -> None:
        """It is at work, and its errors go where the process that started it writes its own; so does what it wrote
        until now.
        """

    def how_it_ended(self) -> str:
        """In words, with the last lines that it wrote if it never got to work."""

    def kill(self) -> None:
        """Have it killed; `end` waits for that."""

    def end(self) -> None:
        """Wait for it to end, which it does when the connection is closed, and kill it if it does not."""


class Starter(Protocol):
    """What starts processes on some host."""

    @property
    def shares_memory(self) -> bool:
        """Is it this host?"""

    def start(self, *, threads: int | None, shared: Sequence[int] = ()) -> WorkerProcess:
        """A new one. threads, shared: see `ChildProcess`. Raises OSError where it cannot be started."""


class StartsChildren:
    """Starts them as children of this process."""

    shares_memory = True

    def start(self, *, threads: int | None, shared: Sequence[int] = ()) -> WorkerProcess:
        """See `ChildProcess`."""
        return ChildProcess(threads=threads, shared=shared)


CHILDREN = StartsChildren()


class ChildProcess:
    """Runs `draft_process` at the other end of a private socket pair: no ports, no names, no shared files.

    It is a fresh interpreter started by a file's path, so a caller's script needs no `if __name__ == "__main__"` guard,
    and no file in the current folder can take the place of a module. threads: of its products, None for its own choice.
    shared: descriptors of memory and of a bell that it gets too. theirs: the end of a connection from elsewhere, which
    takes the place of the pair.
    """

    clock_offset_s = 0.0  # processes of one host read the same clock

    def __init__(self, *, threads: int | None, shared: Sequence[int] = (), theirs: socket.socket | None = None) -> None:
        with ExitStack() as undone:
            if theirs is None:
                ours, theirs = socket.socketpair()
                undone.enter_context(ours)
                self.connection = ours
            self._stderr: IO[bytes] = undone.enter_context(tempfile.TemporaryFile())
            with theirs:
                self._process = _start([theirs.fileno(), *shared], self._stderr, threads)
            undone.pop_all()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Has it not ended yet?"""
        return self._process.poll() is None

    def started(self) -> None:
        """See `WorkerProcess`."""
        if self._stderr.closed:
            return
        said = self._said()
        self._stderr.close()
        if said:
            sys.stderr.write(said)

    def how_it_ended(self) -> str:
        """In words, with the last lines that it wrote if it never got to work."""
        try:
            ended = _in_words(self._process.wait(timeout=1))
        except subprocess.TimeoutExpired:
            ended = "still running"
        lines = [] if self._stderr.closed else self._said().strip().splitlines()[-LAST_LINES:]
        return "\n".join([ended, *lines])

    def kill(self) -> None:
        """Have it killed; `end` waits for that."""
        self._process.kill()

    def end(self) -> None:
        """Wait for it to end, which it does when the connection is closed, and kill it if it does not."""
        self._stderr.close()
        try:
            self._process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            pass
        finally:  # also when Ctrl-C cut the waiting short
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait(timeout=END_S)

    def _said(self) -> str:
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")


def _start(descriptors: list[int], stderr: IO[bytes], threads: int | None) -> subprocess.Popen[bytes]:
    environment = dict(os.environ) if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with ExitStack() as opened:
        later = _our_stderr()
        opened.callback(os.close, later)
        search_path = [place or os.getcwd() for place in sys.path]
        arguments = [draft_process.__file__, json.dumps(descriptors), str(later), json.dumps(search_path)]
        return subprocess.Popen(
            [sys.executable, "-P", *arguments],
            pass_fds=[*descriptors, later],
            env=environment,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stderr=stderr,
        )


def _our_stderr() -> int:
    """A copy of it, or of nothing where this process has none."""
    try:
        return os.dup(2)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


def _in_words(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:  # a real-time signal
        name = f"signal {-exit_code}"
    hint = ", as the system does where memory runs out" if exit_code == -signal.SIGKILL else ""
    return f"killed by {name}{hint}"
