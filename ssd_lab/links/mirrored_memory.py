"""What two hosts have instead of shared memory: a copy each, brought up to date by what travels between them."""

from __future__ import annotations

import mmap
import struct
import time
from contextlib import suppress
from itertools import chain

from ssd_lab.links.channel import Channel
from ssd_lab.links.shared_memory import WORD, Spans

LEAST_S = 1e-3  # a limit of 0 takes what is there


class MirroredMemory:
    """As `SharedMemory`, over the connection itself: what stands under a flag travels with it, as one piece of bytes.

    Its length is that of the spans: the same in every round, but for what a round has besides.
    """

    def __init__(self, size: int, channel: Channel) -> None:
        self._map = mmap.mmap(-1, size)  # taken from the system as it is written to
        self._channel = channel
        self.bytes = memoryview(self._map)
        self.words = self.bytes[: size - size % WORD].cast("q")

    def raise_flag(self, word: int, number: int, spans: Spans = ()) -> None:
        """Send what stands in these spans, and the flag; nothing if there are none. Raises as `Channel.send`."""
        self.words[word] = number
        if not spans:
            return
        spans = [(word * WORD, (word + 1) * WORD), *spans]
        head = struct.pack(f"<{1 + 2 * len(spans)}q", len(spans), *chain.from_iterable(spans))
        self._channel.flush()
        self._channel.put_piece([head, *(self.bytes[start:stop] for start, stop in spans)])
        self._channel.flush()

    def wait(self, flag: int, last: int, cancel: int, channel: Channel, timeout_s: float | None) -> bool:
        """See `SharedMemory.wait`."""
        end_s = None if timeout_s is None else time.monotonic() + max(timeout_s, LEAST_S)
        while self.words[flag] <= last:
            if self.words[cancel]:
                raise EOFError("this side has left")
            piece = channel.receive_piece(None if end_s is None else max(0.0, end_s - time.monotonic()))
            if piece is None:
                return False
            self._take_in(piece)
        return True

    def close(self) -> None:
        """Give up this copy; calling it twice is fine."""
        for view in (self.words, self.bytes):
            with suppress(BufferError):  # somebody looks at a part of it still: freed with that
                view.release()
        with suppress(BufferError):
            self._map.close()

    def _take_in(self, piece: memoryview) -> None:
        (count,) = struct.unpack_from("<q", piece)
        place = struct.calcsize(f"<{1 + 2 * count}q")
        for start, stop in struct.iter_unpack("<2q", piece[8:place]):
            self.bytes[start:stop] = piece[place : place + stop - start]
            place += stop - start
