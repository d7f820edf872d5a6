"""A draft worker in a thread of this process."""

from __future__ import annotations

import queue
import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch

from ssd_lab.errors import DraftLateError, DraftWorkerError
from ssd_lab.links.link import NumberedLink
from ssd_lab.links.messages import Message
from ssd_lab.links.worker import Worker
from ssd_lab.rounds.proposal import Proposal

END_S = 10.0  # for a thread that was told to end (a tree takes milliseconds)


class ThreadLink(NumberedLink):
    """The worker runs in a thread of this process."""

    def __init__(self, make_worker: Callable[[], Worker], *, threads: int | None, start_timeout_s: float) -> None:
        super().__init__()
        self._inbox: queue.Queue[tuple[int, Message] | None] = queue.Queue()
        self._outbox: queue.Queue[tuple[int, Proposal | BaseException | None]] = queue.Queue()
        self._threads = threads
        self._thread = threading.Thread(target=self._serve, args=(make_worker,), name="ssd_lab-draft", daemon=True)
        self._thread.start()
        try:
            self._receive(0, start_timeout_s)
        except BaseException:  # nobody will wait for it; it ends, and frees its model, once it is made
            self._tell_to_end()
            raise

    def close(self) -> None:
        """Ask the thread to end and wait for it, 10 s at most."""
        self._tell_to_end()
        if self.is_forked:  # threads are not forked
            return
        self._thread.join(timeout=END_S)
        if self._thread.is_alive():
            warnings.warn(
                f"the draft worker's thread is still busy after {END_S:g} s: it ends, and frees its memory, as soon as "
                "it is done with that",
                RuntimeWarning,
                stacklevel=2,
            )

    def _tell_to_end(self) -> None:
        self._closed = True
        self._inbox.put(None)

    def _put(self, number: int, message: Any) -> None:
        self._inbox.put((number, message))

    def _take(self, timeout_s: float) -> tuple[int, Proposal | None]:
        try:
            number, reply = self._outbox.get(timeout=timeout_s)
        except queue.Empty:
            raise DraftLateError(f"the draft worker did not answer within {timeout_s:g} s") from None
        if isinstance(reply, BaseException):
            raise DraftWorkerError(f"the draft worker failed: {type(reply).__name__}: {reply}") from reply
        return number, reply

    def _serve(self, make_worker: Callable[[], Worker]) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)  # OpenMP keeps this number for each thread apart
        try:
            worker = make_worker()
            self._outbox.put((0, None))
            while (item := self._inbox.get()) is not None and not self._closed:
                number, message = item
                reply = worker.handle(message)
                if reply is not None:
                    self._outbox.put((number, reply))
                    worker.background()
        except BaseException as error:  # whatever ends the worker must reach the caller, who would wait in vain
            self._outbox.put((-1, error))
