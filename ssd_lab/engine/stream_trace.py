"""The rounds of the stream that began last: there for whoever asks, gone when the next request begins."""

from __future__ import annotations

from collections.abc import Callable

from ssd_lab.engine.recording import Recording
from ssd_lab.engine.service import EngineService
from ssd_lab.trace import Trace


class StreamTrace:
    """Holds one stream's recording at a time, so that a chat of any length takes the memory of one answer."""

    def __init__(self, service: EngineService) -> None:
        self._service = service
        self._recording = service.recording()
        self._is_open = False

    def begin(self) -> Recording:
        """For a stream that begins; what an earlier one recorded is dropped, though that may go on."""
        self._recording.drop()
        self._recording, self._is_open = self._service.recording(), True
        return self._recording

    def end(self, recording: Recording) -> None:
        """That stream is over; its rounds are kept until the next request."""
        if recording is self._recording:
            self._is_open = False

    def other_begins(self) -> None:
        """A request that is no stream begins."""
        if not self._is_open:
            self._recording.drop()
            self._recording = self._service.recording()

    def so_far(self, first_round: int) -> Trace:
        """From this round on."""
        return self._asked(self._recording.so_far).trace(first_round)

    def take(self) -> Trace:
        """All of it; recording starts afresh."""
        return self._asked(self._recording.take).trace()

    def _asked(self, question: Callable[[], Recording]) -> Recording:
        """Between two steps, so that no round is half there."""
        return question() if self._service.is_closed else self._service.ask(question)
