"""Links between the engine and a draft worker: outcomes one way, speculations the other."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from ssd_lab.errors import DraftWorkerError, ForkedProcessError
from ssd_lab.links.messages import Lookup, Message, RoundMessage
from ssd_lab.links.traffic import Traffic
from ssd_lab.links.worker import Worker
from ssd_lab.rounds.proposal import ForHits, Proposal

CLOSED = "the link to the draft worker is closed"
Result = TypeVar("Result")


class Pending:
    """A round that a worker was asked for.

    A caller that is interrupted may leave it: the next round that is asked over the same link is answered all the same.
    """

    def __init__(self, wait: Callable[[float], Proposal]) -> None:
        self._wait = wait

    def answer(self, timeout_s: float) -> Proposal:
        """Wait for the draft tokens, once. Raises DraftWorkerError if the worker died, and DraftLateError if the time
        is up: then it may be waited for again.
        """
        return self._wait(timeout_s)


class Link(ABC):
    """Carries messages to a worker in order. After a reply the worker works ahead while the caller goes on.

    It belongs to the process that made it: in a fork of that it raises ForkedProcessError, and closing it there leaves
    the worker to its owner. runs_by_itself: the worker does not need the caller's thread. looks_up: it works where the
    target leaves its outcomes, so that it can be asked for what is prepared for them.
    """

    runs_by_itself = False
    looks_up = False

    def __init__(self) -> None:
        self._owner = os.getpid()

    @property
    def is_forked(self) -> bool:
        """Is this a copy, in a process that was forked from the owner?"""
        return os.getpid() != self._owner

    def _check_process(self) -> None:
        """Two processes that read one worker's answers would each get some of the other's."""
        if self.is_forked:
            raise ForkedProcessError(
                f"this draft worker belongs to process {self._owner}, of which this one ({os.getpid()}) was forked: "
                "make the LLM in the process that uses it (multiprocessing: start method 'spawn')"
            )

    @abstractmethod
    def post(self, message: Message) -> None:
        """Send a message that has no reply."""

    @abstractmethod
    def ask(self, message: RoundMessage) -> Pending:
        """Send a round. A worker elsewhere drafts while the caller goes on, perhaps to ask another one. Raises
        DraftWorkerError if the worker died.
        """

    def work_ahead(self) -> None:  # noqa: B027 - a worker that runs by itself has begun already
        """The caller has nothing to do but wait: a worker that runs here may prepare for the next outcome."""

    def look_up(self, lookup: Lookup) -> ForHits | None:
        """See `Lookup`; None where nothing is prepared for these rows, or the link does not look up."""
        return None

    def start_ahead(self) -> None:  # noqa: B027 - a link that does not look up has nothing ready
        """All outcomes of the last lookup were prepared: the worker may begin to prepare for those that come next."""

    @abstractmethod
    def close(self) -> None:
        """Stop the worker and free what it holds; calling it twice is fine."""


class InlineLink(Link):
    """The worker runs in the caller's thread: nothing overlaps, and an answer that took too long is known after it."""

    looks_up = True

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self._worker: Worker | None = worker

    def post(self, message: Message) -> None:
        """Handle the message now."""
        worker = self._running()
        _guarded(lambda: worker.handle(message))

    def ask(self, message: RoundMessage) -> Pending:
        """Handle the round now."""
        worker = self._running()
        start_s = time.monotonic()
        proposal = _guarded(lambda: worker.handle(message))
        took_s = time.monotonic() - start_s

        def answer(timeout_s: float) -> Proposal:
            if took_s > timeout_s:
                raise DraftWorkerError(
                    f"the draft worker took {took_s:.3g} s to answer, and its limit is {timeout_s:g} s"
                )
            return _present(proposal)

        return Pending(answer)

    def work_ahead(self) -> None:
        """Work ahead now."""
        _guarded(self._running().background)

    def look_up(self, lookup: Lookup, hand_over: Callable[[ForHits], ForHits] = lambda found: found) -> ForHits | None:
        """Look up now. hand_over: what is found goes through it, before the worker does more."""
        worker = self._running()

        def found() -> ForHits | None:
            own = worker.look_up(lookup)
            if own is not None:
                own = hand_over(own)
                worker.get_ready()
            return own

        return _guarded(found)

    def start_ahead(self) -> None:
        """Start now."""
        _guarded(self._running().start_ahead)

    def close(self) -> None:
        """Drop the worker."""
        self._worker = None

    def _running(self) -> Worker:
        self._check_process()
        if self._worker is None:
            raise DraftWorkerError(CLOSED)
        return self._worker


def _guarded(work: Callable[[], Result]) -> Result:
    """A worker that fails here fails as it would elsewhere."""
    try:
        return work()
    except Exception as error:
        raise DraftWorkerError(f"the draft worker failed: {type(error).__name__}: {error}") from error


def _present(proposal: Proposal | None) -> Proposal:
    if proposal is None:
        raise DraftWorkerError("the draft worker gave no reply to a round")
    return proposal


class NumberedLink(Link):
    """A link to a worker that runs by itself. Each message has a number, and a reply that of its message: one that
    nobody waits for any more, since Ctrl-C came between, is dropped.
    """

    runs_by_itself = True

    def __init__(self) -> None:
        super().__init__()
        self.traffic = Traffic()
        self._closed = False
        self._number = 0  # of the latest message
        self._answered = -1  # number of the latest message whose reply was taken

    def post(self, message: Message) -> None:
        """Send the message."""
        self._send(message)
        self.traffic.posted += 1

    def ask(self, message: RoundMessage) -> Pending:
        """Send the round."""
        self._send(message)
        self.traffic.asked += 1
        number = self._number
        return Pending(lambda timeout_s: _present(self._receive(number, timeout_s)))

    def _send(self, message: Any) -> None:
        self._check_process()
        if self._closed:
            raise DraftWorkerError(CLOSED)
        self._number += 1
        self._put(self._number, message)

    def _receive(self, number: int, timeout_s: float) -> Proposal | None:
        """The reply to the message of this number. None: the worker has started."""
        self._check_process()
        if number <= self._answered:
            raise DraftWorkerError("this round, or a later one, was answered already")
        while True:
            own, reply = self._take(timeout_s)
            self.traffic.answered += 1
            self._answered = max(own, self._answered)
            if own == number:
                return reply

    @abstractmethod
    def _put(self, number: int, message: Any) -> None:
        """Send a message."""

    @abstractmethod
    def _take(self, timeout_s: float) -> tuple[int, Proposal | None]:
        """Wait for the next reply. Raises DraftWorkerError if the worker died, DraftLateError if the time is up."""
