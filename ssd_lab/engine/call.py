"""One caller's requests, and what the engine's thread tells the caller of them."""

from __future__ import annotations

import queue
from collections.abc import Callable, Collection
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import Any

from ssd_lab.config import SamplingParams
from ssd_lab.engine.recording import Recording
from ssd_lab.rounds.sequence import Sequence
from ssd_lab.rounds.stopping import FinishReason
from ssd_lab.trace.totals import Totals


@dataclass(frozen=True)
class Request:
    """What is to be generated. prompt: the text that the ids were made of, for the trace. behind: ids of the text that
    this one's continues (none: it is a text of its own). expected: ids that it may turn out to be, for drafts.
    """

    prompt_ids: list[int]
    params: SamplingParams
    seed: int
    prompt: str | None = None
    behind: SequenceOf[int] = ()
    expected: SequenceOf[int] = ()


@dataclass(frozen=True)
class Step:
    """The engine has done a step, its `number`th since these requests began; totals: the counts so far, a copy."""

    number: int
    totals: Totals


@dataclass(frozen=True)
class Piece:
    """Text and tokens of one request that became certain. finish_reason is set on its last one; logprobs, of each
    token, where the request asks for them.
    """

    index: int
    text: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    logprobs: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Ended:
    """Every request of the call has ended. error: why the engine ended them all, if it failed."""

    error: BaseException | None = None


Event = Step | Piece | Ended


class Call:
    """Requests that belong together, submitted with `EngineService.begin`, and their events in order.

    wanted: which events are told besides the last one, which is `Ended`. sequences: of the requests, in their order,
    once the engine has them: to be read when they have ended, and before that as a hint of progress. tell: who is told
    of events, on the engine's thread, and must neither wait nor raise there; None keeps them in `events`.
    """

    def __init__(
        self,
        requests: list[Request],
        recording: Recording,
        wanted: Collection[type[Step] | type[Piece]] = (),
        tell: Callable[[Event], None] | None = None,
    ) -> None:
        self.requests = requests
        self.recording = recording
        self.sequences: list[Sequence] = []
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._tell = self.events.put if tell is None else tell
        self._wanted = frozenset(wanted)
        self._steps = 0
        self._steps_answered = 0
        self._shown = [(0, 0)] * len(requests)  # characters and tokens of each that were told
        self._first_open = 0  # all requests before this one have ended

    # What follows belongs to the engine's thread.

    @property
    def is_behind(self) -> bool:
        """Was it told of steps that it has not answered?"""
        return self._steps_answered < self._steps and Step in self._wanted

    def has_ended(self) -> bool:
        """Have all its requests?"""
        while self._first_open < len(self.sequences) and self.sequences[self._first_open].end_s is not None:
            self._first_open += 1
        return self._first_open == len(self.sequences)

    def answer_step(self) -> None:
        """The caller is done with the oldest step that it was told of."""
        self._steps_answered += 1

    def tell_step(self) -> None:
        """The engine did a step: tell what is new, and whether that was all."""
        self._steps += 1
        if Piece in self._wanted:
            self._tell_pieces()
        if Step in self._wanted:
            self._tell(Step(self._steps, self.recording.totals.copy()))

    def tell_end(self, error: BaseException | None = None) -> None:
        """There will be no more."""
        if Piece in self._wanted and error is None:
            self._tell_pieces()
        self._tell(Ended(error))

    def _tell_pieces(self) -> None:
        for index, sequence in enumerate(self.sequences):
            if sequence.error is None and (piece := self._piece(index, sequence)) is not None:
                self._tell(piece)

    def _piece(self, index: int, sequence: Sequence) -> Piece | None:
        """What became certain since the last piece; None if nothing did, or all was told before."""
        shown, tokens = self._shown[index]
        ended = sequence.end_s is not None
        certain = len(sequence.stop.text) if ended else sequence.stop.certain_length
        if tokens < 0 or (certain <= shown and not ended):
            return None
        new = sequence.output_ids[tokens:]
        self._shown[index] = (certain, -1 if ended else tokens + len(new))
        text, reason = sequence.stop.text[shown:certain], sequence.finish_reason if ended else None
        return Piece(index, text, new, reason, sequence.logprobs[tokens : tokens + len(new)])
