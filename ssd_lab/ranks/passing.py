"""Words and open files between ranks of one host, before they have anything else: sockets in the meeting's folder."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from ssd_lab.errors import RankError
from ssd_lab.ranks.meeting import Meeting

LOOK_S = 0.05  # between two looks at whether a rank has opened its end, or is alive
LONGEST = 500  # letters of what is said


class Passing:
    """Each rank says something to all others, in rounds. Close it.

    are_alive: of the processes that this one knows; asked while it waits.
    """

    def __init__(self, rank: int, meeting: Meeting, are_alive: Callable[[], bool]) -> None:
        self._rank, self._limit_s, self._are_alive = rank, meeting.limit_s, are_alive
        self._round = 0
        self._heard: dict[tuple[int, int], str] = {}  # by round and rank
        self.files: dict[int, int] = {}  # descriptors, by the rank that passed them; closed with this
        self._to: dict[int, socket.socket] = {}
        self._own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._own.settimeout(LOOK_S)
            self._own.bind(str(meeting.file(f"passing-{rank}")))
            for other in range(meeting.size):
                if other != rank:
                    self._to[other] = self._connected(meeting, other)
        except BaseException:
            self.close()
            raise

    def round(self, words: str, file: int | None = None) -> list[str]:
        """Say this, and hear what the others say. When it returns, all of them have opened their ends."""
        self._round += 1
        end_s = time.monotonic() + self._limit_s
        message = json.dumps([self._round, self._rank, words[:LONGEST]]).encode()
        for other, way in self._to.items():
            try:
                socket.send_fds(way, [message], [] if file is None else [file])
            except OSError as error:
                raise RankError(f"rank {other} cannot be told how memory is shared: {error}") from error
        wanted = {(self._round, other) for other in self._to}
        while not wanted <= self._heard.keys():
            with suppress(TimeoutError):
                data, files, _, _ = socket.recv_fds(self._own, 1 << 16, 1)
                number, rank, said = json.loads(data)
                self._heard[number, rank] = said
                self.files.update((rank, each) for each in files)
                continue
            (missing, *_) = sorted(other for _, other in wanted - self._heard.keys())
            self._keep_waiting(missing, end_s)
        return [self._heard[key] for key in sorted(wanted)]

    def close(self) -> None:
        """Its ends, and the files."""
        for way in (self._own, *self._to.values()):
            way.close()
        for file in self.files.values():
            os.close(file)
        self.files = {}

    def _connected(self, meeting: Meeting, other: int) -> socket.socket:
        end_s = time.monotonic() + meeting.limit_s
        way = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            way.settimeout(meeting.limit_s)
            while True:
                with suppress(FileNotFoundError, ConnectionRefusedError):
                    way.connect(str(meeting.file(f"passing-{other}")))
                    return way
                self._keep_waiting(other, end_s)
                time.sleep(LOOK_S)
        except BaseException:
            way.close()
            raise

    def _keep_waiting(self, other: int, end_s: float) -> None:
        if not self._are_alive():
            raise RankError(f"rank {other} is gone")
        if time.monotonic() > end_s:
            raise RankError(f"rank {other} did not start within {self._limit_s:g} s")
