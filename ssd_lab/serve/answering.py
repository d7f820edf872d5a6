"""One request's generation as the event loop sees it: pieces to wait for, and a way to leave."""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from ssd_lab.config import SamplingParams
from ssd_lab.engine.call import Ended, Event, Piece
from ssd_lab.engine.submission import Submission
from ssd_lab.serve.errors import ApiError, of_failure
from ssd_lab.serve.served import Served


class Mailbox:
    """Carries events from the engines' threads to the event loop, which is woken once for all that came meanwhile."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._letters: deque[tuple[Callable[[Event], None], Event]] = deque()
        self._is_coming = False

    def put(self, deliver: Callable[[Event], None], event: Event) -> None:
        """On an engine's thread."""
        self._letters.append((deliver, event))
        if not self._is_coming:
            self._is_coming = True
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                self._loop.call_soon_threadsafe(self._empty)

    def _empty(self) -> None:
        self._is_coming = False  # first: what comes from now on is either taken below or wakes the loop again
        while self._letters:
            deliver, event = self._letters.popleft()
            deliver(event)


class AnsweringObserver(ABC):
    """Told on the event loop of what an engine does for requests."""

    @abstractmethod
    def piece(self, answering: Answering, gap_s: float) -> None:
        """A text went on, so long after its last piece."""

    @abstractmethod
    def ended(self, answering: Answering) -> None:
        """All its texts have ended, and hold nothing any more."""


class Answering:
    """Texts that one HTTP request asks for. They hold their places until the engine is done with them, whether or not
    the client is still there.

    noted: what the access log says of it.
    """

    def __init__(self, served: Served, mailbox: Mailbox, limit_s: float, observer: AnsweringObserver) -> None:
        self.served = served
        self.started_s = time.perf_counter()
        self.ended_s: float | None = None
        self.submission: Submission | None = None
        self.is_left = False
        self.noted: dict[str, Any] = {}
        self.limit_s = limit_s
        self._mailbox, self._observer = mailbox, observer
        self._last_piece_s: dict[int, float] = {}
        self._count = 0
        self._pieces: asyncio.Queue[Event] = asyncio.Queue()

    def begin(
        self, prompts: Sequence[Any], params: Sequence[SamplingParams], expected: str | None = None
    ) -> Submission:
        """Submit. Raises ApiError (429) if too much waits, SsdLabError for what the engine will not take."""
        self.served.admission.enter(len(prompts))
        self._count = len(prompts)
        try:
            self.submission = self.served.llm.submit(
                list(prompts), list(params), tell=partial(self._mailbox.put, self._take), expected=expected
            )
        except BaseException:
            self.served.admission.leave(self._count)
            raise
        return self.submission

    async def pieces(self) -> AsyncIterator[Piece]:
        """Until all texts have ended. Raises ApiError if the engine failed, or time is up."""
        end_s = self.started_s + self.limit_s
        while True:
            try:
                async with asyncio.timeout(end_s - time.perf_counter()):
                    event = await self._pieces.get()
            except TimeoutError:
                self.cancel()
                raise ApiError(
                    504, f"the request took longer than {self.limit_s:g} s: ask for fewer tokens", code="timeout"
                ) from None
            if isinstance(event, Piece):
                yield event
            elif isinstance(event, Ended):
                self._check_end(event)
                return

    def leave(self) -> None:
        """The client has gone."""
        self.is_left = True
        self.cancel()

    def cancel(self) -> None:
        """End what is left; calling it twice is fine."""
        if self.submission is not None and self.ended_s is None:
            self.submission.cancel()

    def abandon(self) -> None:
        """Wait no longer for the engine: it does not answer, and the server ends."""
        self._pieces.put_nowait(Ended(_stopped()))

    def _check_end(self, ended: Ended) -> None:
        """Raise ApiError if not all texts ended by themselves."""
        sequences = [] if self.submission is None else self.submission.sequences
        errors = [ended.error, *(sequence.error for sequence in sequences)]
        if (error := next((each for each in errors if each is not None), None)) is not None:
            raise error if isinstance(error, ApiError) else of_failure(error)
        if not self.is_left and any(sequence.finish_reason == "cancelled" for sequence in sequences):
            raise _stopped()

    def _take(self, event: Event) -> None:
        if isinstance(event, Ended):
            self.ended_s = time.perf_counter()
            self.served.admission.leave(self._count, self.ended_s - self.started_s)
            self._observer.ended(self)
        elif isinstance(event, Piece):
            now_s = time.perf_counter()
            if event.index in self._last_piece_s:
                self._observer.piece(self, now_s - self._last_piece_s[event.index])
            self._last_piece_s[event.index] = now_s
        self._pieces.put_nowait(event)


def _stopped() -> ApiError:
    return ApiError(503, "the server stopped before the text was finished: ask another one", code="stopping")
