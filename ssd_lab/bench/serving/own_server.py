"""`ssd-lab serve` started for a load, and stopped after it."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from ssd_lab.client.address import unreachable
from ssd_lab.errors import ServerError

START_S = 300.0  # models are loaded, on a GPU graphs captured
ANSWER_S = 30.0  # once it has said where it listens
STOP_S = 60.0
LOOK_S = 0.05
_SAID = re.compile(r"serving .* at (http://\S+)")
_KEPT_LINES = 5


@dataclass(frozen=True)
class OwnServer:
    """Where it listens, and its process."""

    url: str
    process_id: int


@contextmanager
def own_server(arguments: Sequence[str]) -> Iterator[OwnServer]:
    """A server in a process of its own, on a free port. arguments: of `ssd-lab serve`.

    Raises ServerError, with what it said last, if it ends or does not listen in time.
    """
    command = [sys.executable, "-m", "ssd_lab.cli", "serve", "--port", "0", "--no-access-log", *arguments]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        reading = _Reading(process)
        try:
            url = reading.url()
            _until_it_answers(url)
            yield OwnServer(url, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
            reading.thread.join(STOP_S)


def _until_it_answers(url: str) -> None:
    """The address is known before the server takes requests. Raises ServerError."""
    end_s = time.monotonic() + ANSWER_S
    with httpx.Client(timeout=ANSWER_S) as client:
        while True:
            try:
                client.get(f"{url}/health")
                return
            except httpx.HTTPError as error:
                if time.monotonic() > end_s:
                    raise unreachable(url, error) from error
            time.sleep(LOOK_S)


class _Reading:
    """Reads what the server says for as long as it runs, so that it never waits for a full pipe."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._known = threading.Event()
        self._url: str | None = None
        self._lines: list[str] = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def url(self) -> str:
        """Where it listens."""
        self._known.wait(START_S)
        if self._url is None:
            said = " ".join(self._lines) or "nothing"
            raise ServerError(f"`ssd-lab serve` did not begin to listen; it said: {said}", "did not start")
        return self._url

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if (found := _SAID.search(line)) is not None:
                self._url = found[1]
                self._known.set()
            self._lines = [*self._lines, line.strip()][-_KEPT_LINES:]
        self._known.set()
