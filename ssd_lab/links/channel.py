"""Whole objects over a stream socket, in both directions at once."""

from __future__ import annotations

import io
import pickle
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import torch

_LENGTH = struct.Struct("<Q")
_IS_PIECE = 1 << 63  # in a length: what follows is a piece, and no object


def _tensor(data: bytearray, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    kind = getattr(torch, dtype)
    return torch.frombuffer(data, dtype=kind).view(shape) if data else torch.empty(shape, dtype=kind)


class _Pickler(pickle.Pickler):
    """Tensors travel as their bytes, which is faster and shorter than torch's own way."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, torch.Tensor):
            data = obj.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
            return _tensor, (pickle.PickleBuffer(data), str(obj.dtype).removeprefix("torch."), tuple(obj.shape))
        return NotImplemented


def dumped(message: Any) -> memoryview:
    """An object as bytes that `pickle.loads` reads."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=5).dump(message)
    return buffer.getbuffer()


class _Bytes:
    """Bytes under way; its length is how many are still to be moved. tells_length: of the object that follows. number:
    of the object. is_piece: bytes for whoever takes pieces.
    """

    def __init__(self, data: Any = b"", *, tells_length: bool = False, number: int = 0, is_piece: bool = False) -> None:
        self.data, self.tells_length, self.number, self.is_piece = data, tells_length, number, is_piece
        self._view = memoryview(data)
        self._moved: list[int] = []

    def __len__(self) -> int:
        return len(self._view) - sum(self._moved)

    def move(self, transfer: Callable[[memoryview], int]) -> int:
        """Let a socket's function move some of what is left; returns how many bytes it moved.

        The count is noted by the same call into C that moves the bytes: Ctrl-C can come before both or after both.
        """
        self._moved.extend(map(transfer, (self._view[sum(self._moved) :],)))
        moved = self._moved[-1]
        self._moved = [sum(self._moved)]
        return moved


class Channel:
    """Whole objects over a stream socket, each with its length in front; and pieces, which are bytes, in one order with
    them.

    While it sends it takes in what comes, so two sides that both send do not wait for each other. Ctrl-C may interrupt
    a transfer at any byte: what is left of it is kept, and the next transfer begins with it.
    """

    def __init__(self, connection: socket.socket, *, send_timeout_s: float | None = None) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._poll = select.poll()
        self._send_timeout_s = send_timeout_s
        self._outgoing = _Bytes()
        self._incoming = _length_to_come()
        self._arrived: deque[_Bytes] = deque()

    def send(self, message: Any) -> None:
        """Send one object. Raises TimeoutError, or OSError or EOFError when the other side is gone."""
        self.flush()
        self.put(message)
        self.flush()

    def put(self, message: Any) -> None:
        """Make an object ready to be sent by `flush`; the one before it must be through."""
        buffer = io.BytesIO(bytes(_LENGTH.size))
        buffer.seek(_LENGTH.size)
        _Pickler(buffer, protocol=5).dump(message)
        data = buffer.getbuffer()
        _LENGTH.pack_into(data, 0, len(data) - _LENGTH.size)
        self._outgoing = _Bytes(data, number=self.num_put + 1)

    def put_piece(self, parts: Iterable[bytes | memoryview]) -> None:
        """As `put`, of bytes that are no object."""
        parts = list(parts)
        length = _LENGTH.pack(sum(map(len, parts)) | _IS_PIECE)
        self._outgoing = _Bytes(b"".join([length, *parts]), number=self.num_put)

    @property
    def num_put(self) -> int:
        """Objects that were sent, or will be by the next `flush`."""
        return self._outgoing.number

    def flush(self) -> None:
        """Send what is left of the last object; raises as `send` does."""
        deadline_s = _deadline_s(self._send_timeout_s)
        while self._outgoing:
            ready = self._wait(select.POLLIN | select.POLLOUT, deadline_s)
            if ready & select.POLLIN:
                self._read()
            if ready & ~select.POLLIN:
                self._write()

    def receive(self, timeout_s: float | None = None) -> Any:
        """Wait for one object; pieces before it are of no account any more. Raises TimeoutError, or OSError or EOFError
        when the other side is gone.
        """
        deadline_s = _deadline_s(timeout_s)
        while (came := self._next(deadline_s)).is_piece:
            self._arrived.popleft()
        self._arrived.popleft()
        return pickle.loads(came.data)

    def receive_piece(self, timeout_s: float | None = None) -> memoryview | None:
        """Wait for one piece; None if an object comes before it. Raises as `receive`."""
        came = self._next(_deadline_s(timeout_s))
        return memoryview(self._arrived.popleft().data) if came.is_piece else None

    @property
    def has_object(self) -> bool:
        """Is a whole object the next that arrived and that nobody received yet?"""
        return bool(self._arrived) and not self._arrived[0].is_piece

    def fileno(self) -> int:
        """Of the socket, for whoever waits for more than this."""
        return self._socket.fileno()

    def take_in(self) -> None:
        """Take in some of what is there; raises as `receive` does."""
        self._read()

    def close(self) -> None:
        """End the connection for both sides, also where a forked child holds a copy of this end."""
        with suppress(OSError):  # it ended before
            self._socket.shutdown(socket.SHUT_RDWR)
        self.abandon()

    def abandon(self) -> None:
        """Give up this copy of this end; the connection goes on for whoever else holds it."""
        self._socket.close()

    def _next(self, deadline_s: float | None) -> _Bytes:
        """What comes next, left where it is."""
        while not self._arrived:
            self._wait(select.POLLIN, deadline_s)
            self._read()
        return self._arrived[0]

    def _wait(self, events: int, deadline_s: float | None) -> int:
        """Which of the events came; an error or an end counts as one, for reading or writing will tell it."""
        self._poll.register(self._socket, events)
        left_s = None if deadline_s is None else deadline_s - time.monotonic()
        if left_s is None or left_s >= 0:  # the limit is that of the whole object, not of each piece
            ready = self._poll.poll(None if left_s is None else 1000 * left_s)
            if ready:
                return ready[0][1]
        raise TimeoutError("the time is up")

    def _write(self) -> None:
        with suppress(BlockingIOError):  # less room than it seemed
            self._outgoing.move(self._socket.send)

    def _read(self) -> None:
        """Take in some of what is there."""
        if self._incoming:
            try:
                if self._incoming.move(self._socket.recv_into) == 0:
                    raise EOFError("the other side closed the connection")
            except BlockingIOError:  # somebody's false alarm
                return
        if self._incoming:
            return
        came = self._incoming
        if came.tells_length:
            told = _LENGTH.unpack(came.data)[0]
            self._incoming = _Bytes(bytearray(told & ~_IS_PIECE), is_piece=bool(told & _IS_PIECE))
        else:
            self._incoming = _length_to_come()
            self._arrived.append(came)


def _length_to_come() -> _Bytes:
    return _Bytes(bytearray(_LENGTH.size), tells_length=True)


def _deadline_s(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s
