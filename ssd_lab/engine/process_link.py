"""A draft worker in a child process: its own interpreter, so neither side waits for the other's Python."""

from __future__ import annotations

import io
import os
import pickle
import select
import socket
import struct
import subprocess
import sys
from typing import Any

import numpy as np
import torch

from ssd_lab.engine.link import Link
from ssd_lab.engine.messages import Message, RoundMessage, RoundReply
from ssd_lab.engine.worker_setup import WorkerSetup
from ssd_lab.errors import DraftWorkerError

_LENGTH = struct.Struct("<Q")


def _tensor_from_array(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)


class _Pickler(pickle.Pickler):
    """Tensors travel as arrays, which pickle much faster."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, torch.Tensor):
            return _tensor_from_array, (obj.cpu().numpy(),)
        return NotImplemented


class Channel:
    """Whole objects over a stream socket, each with its length in front."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setblocking(True)

    def send(self, message: Any) -> None:
        """Send one object."""
        buffer = io.BytesIO()
        _Pickler(buffer, protocol=5).dump(message)
        data = buffer.getbuffer()
        self._socket.sendall(_LENGTH.pack(len(data)))
        self._socket.sendall(data)

    def receive(self, timeout_s: float | None = None) -> Any:
        """Wait for one object. Raises TimeoutError, or EOFError when the other side is gone."""
        if timeout_s is not None and not select.select([self._socket], [], [], timeout_s)[0]:
            raise TimeoutError
        self._socket.settimeout(timeout_s)
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        return pickle.loads(self._read(length))

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _read(self, length: int) -> bytearray:
        data = bytearray(length)
        view, got = memoryview(data), 0
        while got < length:
            size = self._socket.recv_into(view[got:])
            if size == 0:
                raise EOFError("the other side closed the connection")
            got += size
        return data


class ProcessLink(Link):
    """The worker runs in a child process, reached over a private socket pair: no ports, no names, no shared files.

    The child is a fresh interpreter started by module name, so a caller's script needs no `if __name__ == "__main__"`
    guard. It ends when its end of the socket closes, also if this process dies.
    """

    def __init__(self, setup: WorkerSetup, *, start_timeout_s: float) -> None:
        ours, theirs = socket.socketpair()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        if setup.threads is not None:
            environment["OMP_NUM_THREADS"] = str(setup.threads)
        command = [sys.executable, "-m", "ssd_lab.engine.draft_process", str(theirs.fileno())]
        self._process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], env=environment, start_new_session=True, stdin=subprocess.DEVNULL
        )
        theirs.close()
        self._channel = Channel(ours)
        self._closed = False
        try:
            self._send(setup)
            self._receive(start_timeout_s)
        except DraftWorkerError:
            self.close()
            raise

    @property
    def process_id(self) -> int:
        """The child's process id."""
        return self._process.pid

    def post(self, message: Message) -> None:
        """Send the message."""
        self._send(message)

    def call(self, message: RoundMessage, timeout_s: float) -> RoundReply:
        """Send the round and wait for its reply."""
        self._send(message)
        return self._receive(timeout_s)

    def close(self) -> None:
        """Close the socket, at which the child ends; kill it if it does not within 5 s."""
        if self._closed:
            return
        self._closed = True
        self._channel.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=5)

    def _send(self, message: Any) -> None:
        if self._closed:
            raise DraftWorkerError("the link to the draft worker is closed")
        try:
            self._channel.send(message)
        except OSError as error:
            raise DraftWorkerError(f"the draft process is gone ({self._exit_code()}): {error}") from error

    def _receive(self, timeout_s: float) -> Any:
        try:
            reply = self._channel.receive(timeout_s)
        except TimeoutError:
            raise DraftWorkerError(f"the draft process did not answer within {timeout_s:g} s") from None
        except (EOFError, OSError) as error:
            raise DraftWorkerError(f"the draft process is gone ({self._exit_code()})") from error
        if isinstance(reply, BaseException):
            raise DraftWorkerError(f"the draft process failed: {type(reply).__name__}: {reply}") from reply
        return reply

    def _exit_code(self) -> str:
        try:
            return f"exit code {self._process.wait(timeout=1)}"
        except subprocess.TimeoutExpired:
            return "still running"
