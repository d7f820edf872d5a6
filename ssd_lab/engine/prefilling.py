"""Computes prompt chunks, of all sequences in one step, with target and draft, and tells how long that took."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_lab.engine.guarded_proposer import GuardedProposer
from ssd_lab.engine.recorder import Recorder
from ssd_lab.engine.recording import Recording
from ssd_lab.engine.scheduler import Scheduler
from ssd_lab.execution.stopwatch import CudaStopwatch, Span, Stopwatch, settled
from ssd_lab.phases.prefill import prefill
from ssd_lab.rounds.runner import StepRunner
from ssd_lab.rounds.sequence import PrefillChunk
from ssd_lab.trace.records import Activity


@dataclass(frozen=True)
class LaunchedPrefill:
    """Prompt chunks that the device may still be computing. recordings: of the requests that they are of."""

    span: Span
    recordings: list[Recording]


class Prefilling:
    """Launches the work, and settles it once a round behind it is over."""

    def __init__(self, runner: StepRunner, proposer: GuardedProposer, scheduler: Scheduler, recorder: Recorder) -> None:
        self._runner, self._proposer, self._scheduler, self._recorder = runner, proposer, scheduler, recorder
        self._watch = CudaStopwatch(runner.device) if runner.device.type == "cuda" else Stopwatch()
        self._launched: list[LaunchedPrefill] = []

    def compute(self, chunks: list[PrefillChunk]) -> None:
        """K/V of these tokens, in the target's cache and the draft's."""
        if not chunks:
            return
        start, layers = self._watch.start(), self._proposer.now.feature_layers
        parts = [chunk.part for chunk in chunks]
        if layers:  # the draft feeds on what the target computes
            features = prefill(self._runner, parts, feature_layers=layers)
            self._proposer.do(lambda proposer: proposer.prefill(chunks, features))
        elif self._runner.executor.runs_behind:  # the draft's work is launched while the device does the target's
            prefill(self._runner, parts)
            self._proposer.do(lambda proposer: proposer.prefill(chunks))
        else:  # the draft goes first, since elsewhere it works while the target does
            self._proposer.do(lambda proposer: proposer.prefill(chunks))
            prefill(self._runner, parts)
        for chunk in chunks:
            chunk.sequence.num_cached = chunk.stop
            self._scheduler.register_full_blocks(chunk.sequence, chunk.stop)
        span = self._watch.span("target", "prefill", start)  # type: ignore[arg-type]
        launched = LaunchedPrefill(span, self._recorder.recordings_of([chunk.sequence for chunk in chunks]))
        if isinstance(span, Activity):
            self._recorder.prefill(span, launched.recordings)
        else:
            self._launched.append(launched)

    def take_launched(self) -> list[LaunchedPrefill]:
        """What was launched since the last call, and lies before whatever is launched next."""
        launched, self._launched = self._launched, []
        return launched

    def settle(self, launched: list[LaunchedPrefill]) -> float:
        """Record what the device is done with; returns when the last of it ended (0.0: there was none)."""
        end_s = 0.0
        for each in launched:
            span = settled(each.span)
            if isinstance(span, Activity):  # else the device tells no time
                self._recorder.prefill(span, each.recordings)
                end_s = max(end_s, span.end_s)
        return end_s
