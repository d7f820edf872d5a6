"""Memory that two processes of one host share, flags in it, and the bell that wakes who waits for one."""

from __future__ import annotations

import mmap
import os
import platform
import select
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from ssd_lab.links.channel import Channel

SPIN_S = 200e-6  # about what a hit takes; longer waits give the processor to others
TAKEN_S = 20e-6  # giving way takes a microsecond where nobody else wants the processor
# A store to an aligned 64-bit word is one instruction, and x86 lets nobody see it before the stores that precede it: a
# flag needs no more than being written last. Elsewhere a flag is believed once the bell was heard, for which the
# kernel orders what each side wrote and reads.
ORDERED = platform.machine().lower() in ("x86_64", "amd64")
WORD = 8
Spans = Sequence[tuple[int, int]]  # first byte, and the one behind the last
_give_way = getattr(os, "sched_yield", partial(time.sleep, 0))


def make_memory(size: int) -> int:
    """A descriptor of new memory of so many bytes, all zero, taken from the system as it is written to.

    It has no name: nobody else finds it, and the system frees it when the last process that holds it is gone, however
    that ended.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("ssd_lab")  # a label for /proc, no name
    else:
        with tempfile.TemporaryFile() as file:  # has lost its name already
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class SharedMemory:
    """One process's view of memory that is shared, and its end of the bell, a socket pair over which nothing is said.

    Words are 64-bit integers, counted from the beginning. Takes over both descriptors.
    """

    def __init__(self, memory: int, size: int, bell: socket.socket) -> None:
        self._bell = bell
        bell.setblocking(False)
        try:
            self._map = mmap.mmap(memory, size)
        finally:
            os.close(memory)
        self.bytes = memoryview(self._map)
        self.words = self.bytes[: size - size % WORD].cast("q")
        self._poll = select.poll()
        self._poll.register(bell, select.POLLIN)
        self._heard = False

    def raise_flag(self, word: int, number: int, spans: Spans = ()) -> None:
        """Let the other side see what was written before this, and wake it. spans: where that is; all is seen here."""
        self.words[word] = number
        with suppress(OSError):  # full: it rings already; gone: the connection beside it tells
            self._bell.send(b"\0")

    def wait(self, flag: int, last: int, cancel: int, channel: Channel, timeout_s: float | None) -> bool:
        """Until the number at the word `flag` is above `last` (True), or the channel has an object (False).

        It looks for a moment, since most waits are short, then sleeps until the bell rings or something comes over the
        channel. Raises TimeoutError, and EOFError or OSError when the other side is gone or has set the word `cancel`.
        """
        start_s = time.monotonic()
        if ORDERED and not channel.has_object:
            self._look(flag, last, start_s, SPIN_S if timeout_s is None else min(SPIN_S, timeout_s))
        left_s = timeout_s
        while True:
            self._listen()
            if self.words[flag] > last and (ORDERED or self._heard):
                self._heard = False
                return True
            if channel.has_object:
                return False
            if self.words[cancel]:
                raise EOFError("the other side has left")
            if left_s is not None and left_s < 0:
                raise TimeoutError("the time is up")
            self._sleep(channel, left_s)  # once at least: a limit of 0 takes what is there
            left_s = None if timeout_s is None else start_s + timeout_s - time.monotonic()

    def _look(self, flag: int, last: int, start_s: float, limit_s: float) -> None:
        """For so long, or until somebody else had this processor meanwhile: the next one may take it for longer."""
        before_s = start_s
        while self.words[flag] <= last and before_s - start_s < limit_s:
            _give_way()
            now_s = time.monotonic()
            if now_s - before_s > TAKEN_S:
                return
            before_s = now_s

    def close(self) -> None:
        """Give up this process's view; calling it twice is fine."""
        self._bell.close()
        for view in (self.words, self.bytes):
            with suppress(BufferError):  # somebody looks at a part of it still: freed with that
                view.release()
        with suppress(BufferError):
            self._map.close()

    def _listen(self) -> None:
        with suppress(BlockingIOError):
            self._heard = bool(self._bell.recv(4096)) or self._heard

    def _sleep(self, channel: Channel, left_s: float | None) -> None:
        self._poll.register(channel, select.POLLIN)
        ready = self._poll.poll(None if left_s is None else 1000 * left_s)
        if not ready:
            raise TimeoutError("the time is up")
        if any(descriptor == channel.fileno() for descriptor, _ in ready):
            channel.take_in()
        elif any(events & ~select.POLLIN for _, events in ready):
            raise EOFError("the other side is gone")
