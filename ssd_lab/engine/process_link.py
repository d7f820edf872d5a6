"""A draft worker in a child process: its own interpreter, so neither side waits for the other's Python."""

from __future__ import annotations

import io
import os
import pickle
import socket
import struct
import subprocess
import sys
import time
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
    """Whole objects over a stream socket, each with its length in front.

    Ctrl-C may interrupt a transfer at any byte: what is left of it is kept, and the next transfer begins with it.
    """

    def __init__(self, connection: socket.socket, *, send_timeout_s: float | None = None) -> None:
        self._socket = connection
        self._send_timeout_s = send_timeout_s
        self._outgoing = memoryview(b"")
        self._incoming = bytearray()
        self._got = 0
        self._length: int | None = None  # of the object that is coming in, once known

    def send(self, message: Any) -> None:
        """Send one object."""
        self._flush()
        buffer = io.BytesIO(bytes(_LENGTH.size))
        buffer.seek(_LENGTH.size)
        _Pickler(buffer, protocol=5).dump(message)
        data = buffer.getbuffer()
        _LENGTH.pack_into(data, 0, len(data) - _LENGTH.size)
        self._outgoing = data
        self._flush()

    def receive(self, timeout_s: float | None = None) -> Any:
        """Wait for one object. Raises TimeoutError, or EOFError when the other side is gone."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        if self._length is None:
            (self._length,) = _LENGTH.unpack(self._read(_LENGTH.size, deadline_s))
        data = self._read(self._length, deadline_s)
        self._length = None
        return pickle.loads(data)

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def _flush(self) -> None:
        self._socket.settimeout(self._send_timeout_s)
        while self._outgoing:
            self._outgoing = self._outgoing[self._socket.send(self._outgoing) :]

    def _read(self, length: int, deadline_s: float | None) -> bytearray:
        if not self._incoming:
            self._incoming, self._got = bytearray(length), 0
        view = memoryview(self._incoming)
        while self._got < length:
            self._socket.settimeout(None if deadline_s is None else max(1e-3, deadline_s - time.monotonic()))
            size = self._socket.recv_into(view[self._got :])
            if size == 0:
                raise EOFError("the other side closed the connection")
            self._got += size
        data, self._incoming = self._incoming, bytearray()
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
        self._channel = Channel(ours, send_timeout_s=start_timeout_s)
        self._closed = False
        self._number = -1  # of the latest message; a reply to an earlier one was left behind by Ctrl-C
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
            self._number += 1
            self._channel.send((self._number, message))
        except OSError as error:
            raise DraftWorkerError(f"the draft process is gone ({self._exit_code()}): {error}") from error

    def _receive(self, timeout_s: float) -> Any:
        number = -1
        try:
            while number != self._number:
                number, reply = self._channel.receive(timeout_s)
                if isinstance(reply, BaseException):
                    break
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
