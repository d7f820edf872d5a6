"""Child processes for tests, forked from one process that has imported what they need.

A fresh interpreter computes for three seconds before it is at work. `child_process` starts its children by
`Forks.start` instead, which takes what it gives to `Popen`; tests of how a fresh one starts are marked
`fresh_interpreter`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import forking_server

OWN_THREADS = {"OPENBLAS_NUM_THREADS": "1"}  # a process that forks should have one


class Forks:
    """Starts child processes. Close it."""

    def __init__(self) -> None:
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-P", forking_server.__file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, **OWN_THREADS},
                start_new_session=True,
                stdin=subprocess.DEVNULL,
            )

    def start(
        self, command: list[str], *, pass_fds: list[int], env: dict[str, str], stderr: IO[bytes], **_: Any
    ) -> ForkedProcess:
        """As `subprocess.Popen`, for `[python, -P, file, *arguments]`."""
        told, tell = os.pipe()
        shared = {1: 1, 2: stderr.fileno(), **{descriptor: descriptor for descriptor in pass_fds}}
        request = {"arguments": command[2:], "places": [*shared], "folder": str(Path.cwd()), "environment": env}
        try:
            socket.send_fds(self._connection, [json.dumps(request).encode()], [tell, *shared.values()])
        finally:
            os.close(tell)
        return ForkedProcess(told)

    def close(self) -> None:
        """End the server."""
        self._connection.close()
        self._server.kill()
        self._server.wait()


class ForkedProcess:
    """What `child_process` uses of `subprocess.Popen`."""

    def __init__(self, told: int) -> None:
        self.returncode: int | None = None
        self._told = told
        self.pid = self._number()

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self._ended()
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Its exit code, once it has ended. Raises TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("forked process", timeout)
            self._ended()
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        """End it at once."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def __del__(self) -> None:
        if self.returncode is None:
            os.close(self._told)

    def _ended(self) -> None:
        self.returncode = self._number()
        os.close(self._told)

    def _number(self) -> int:
        data = os.read(self._told, 8)
        if len(data) != 8:
            raise EOFError("the server of child processes is gone")
        return int.from_bytes(data, "little", signed=True)
