"""Requests under way for a caller that does not wait: it is told of what happens, and may leave at any time."""

from __future__ import annotations

from ssd_lab.engine.call import Call, Request
from ssd_lab.engine.recording import Recording
from ssd_lab.engine.service import EngineService
from ssd_lab.rounds.sequence import Sequence
from ssd_lab.trace.totals import Totals


class Submission:
    """What `LLM.submit` returns. Every method returns at once and may be called from any thread."""

    def __init__(self, service: EngineService, call: Call) -> None:
        self._service = service
        self._call = call

    @property
    def requests(self) -> list[Request]:
        """As they were submitted, one for each prompt."""
        return self._call.requests

    @property
    def sequences(self) -> list[Sequence]:
        """Of the requests, in their order: to be read after `Ended`, and before that as a hint of progress."""
        return self._call.sequences

    @property
    def totals(self) -> Totals:
        """Counts of these requests' rounds so far; they stand still after `Ended`."""
        return self._call.recording.totals

    @property
    def recording(self) -> Recording:
        """Their rounds: to be read after `Ended`, or by way of `LLM.trace_of`."""
        return self._call.recording

    def cancel(self) -> None:
        """End what is left after the step that is being done: their blocks are free then. `Ended` is told all the
        same.
        """
        self._service.cancel_soon(self._call)
