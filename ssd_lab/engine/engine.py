"""The engine: requests in, rounds, tokens out. It asks no strategy who it is; it only knows propose, verify, commit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from operator import methodcaller
from typing import Any

import torch

from ssd_lab.common.device_guard import door
from ssd_lab.config import EngineConfig, SamplingParams
from ssd_lab.drafting.proposer import Proposer
from ssd_lab.engine.flight import Flight, PreparedRound, Settled, may_follow, may_run_ahead
from ssd_lab.engine.guarded_proposer import GuardedProposer
from ssd_lab.engine.limits import EngineLimits
from ssd_lab.engine.prefill_budget import PrefillBudget
from ssd_lab.engine.prefilling import Prefilling
from ssd_lab.engine.recorder import Recorder
from ssd_lab.engine.recording import Recording
from ssd_lab.engine.rounds import Rounds
from ssd_lab.engine.scheduler import Scheduler
from ssd_lab.engine.status import EngineStatus
from ssd_lab.errors import ConfigError, NonFiniteLogitsError
from ssd_lab.execution.host_copy import HostCopy
from ssd_lab.execution.preparations import Preparations
from ssd_lab.phases.prefill import ScorePhase, wipe
from ssd_lab.rounds.block_manager import BlockManager
from ssd_lab.rounds.rows import causal_step_at
from ssd_lab.rounds.runner import StepRunner
from ssd_lab.rounds.sequence import Sequence
from ssd_lab.rounds.stopping import FinishReason, StopRules
from ssd_lab.trace.totals import Totals
from ssd_lab.trace.trace import Trace

_ON_ITS_DEVICE = door(lambda engine: engine._runner.device)


class Engine:
    """Continuous batching over one target runner and one proposer. Use as a context manager, or call `close`."""

    def __init__(
        self,
        runner: StepRunner,
        proposer: Proposer,
        blocks: BlockManager,
        config: EngineConfig,
        limits: EngineLimits,
        *,
        stops: StopRules,
        meta: dict[str, Any],
        preparations: Preparations,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._runner = runner
        self._on_close = on_close
        self._blocks = blocks
        self._config = config
        self._limits = limits
        self._stops = stops
        self._next_id = 0
        self._closed = False
        self._sequences: dict[int, Sequence] = {}
        self._flight: Flight | None = None
        self._preemptions = 0
        self._budget = PrefillBudget.of(config, runner.device, limits.lookahead)
        self._scheduler = Scheduler(blocks, max_batch=config.max_batch, budget=self._budget, reserved=limits.reserved)
        self.recorder = Recorder(meta, record=config.record, vocab_size=limits.vocab_size, preparations=preparations)
        self._proposer = GuardedProposer(
            *(proposer, limits, runner.device),
            on_loss=partial(self.recorder.note, "degraded"),
            on_change=partial(self.recorder.note_more, "drafts"),
        )
        self._prefilling = Prefilling(runner, self._proposer, self._scheduler, self.recorder)
        self._rounds = Rounds(
            runner,
            self._proposer,
            config,
            limits,
            self._scheduler,
            self.recorder,
            blocks_per_row=blocks.blocks_for(limits.max_model_len + limits.reserved),
        )

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def has_work(self) -> bool:
        """Is any request unfinished?"""
        return self._scheduler.has_work or self._flight is not None

    @property
    def limits(self) -> EngineLimits:
        """Sizes that requests must fit."""
        return self._limits

    @property
    def max_batch(self) -> int:
        """The most sequences that are decoded together."""
        return self._config.max_batch

    @property
    def most_prompt_tokens(self) -> int:
        """The most prompt tokens that are computed in one step."""
        return self._budget.most

    @property
    def prepares(self) -> bool:
        """Does the first round of a shape take longer than those after it, since graphs are captured in it?"""
        return self._runner.executor.prepares

    def bucket(self, rows: int) -> int:
        """How many rows are computed for a batch of `rows`."""
        return self._runner.executor.bucket(rows)

    @property
    def num_free_blocks(self) -> int:
        """KV blocks that no request holds."""
        return self._blocks.num_available

    @property
    def kv_bytes(self) -> int:
        """Memory of the target's KV blocks."""
        return self._runner.cache.bytes

    @property
    def proposer(self) -> Proposer:
        """The proposer in use (NoProposer once a draft worker was lost)."""
        return self._proposer.now

    def status(self) -> EngineStatus:
        """How it stands; to be asked between two steps."""
        return EngineStatus(
            waiting=len(self._scheduler.waiting),
            running=len(self._scheduler.running),
            num_blocks=self._blocks.num_usable,
            free_blocks=self._blocks.num_available,
            preemptions=self._preemptions,
            totals=self.recorder.totals.copy(),
            degraded=self.recorder.noted("degraded"),
        )

    def room_after(self, num_prompt: int) -> int:
        """The most tokens that can be generated after a prompt of this length; below 1 if it does not fit."""
        return self._limits.room_after(num_prompt, self._blocks)

    def check(self, prompt_ids: list[int], params: SamplingParams, *, seed: int) -> None:
        """Raise ConfigError, PromptError or CacheCapacityError for a request that could never finish."""
        if self._closed:
            raise ConfigError("the engine is closed: make a new one")
        self._limits.check(prompt_ids, params, seed, self._blocks)

    def submit(
        self,
        prompt_ids: list[int],
        params: SamplingParams,
        *,
        seed: int,
        prompt: str | None = None,
        behind: Iterable[int] = (),
        expected: Iterable[int] = (),
        recording: Recording | None = None,
    ) -> int:
        """Queue a request that `check` lets pass; returns its id. behind: ids of the text that this one's continues
        (none: it is a text of its own). expected: ids that it may turn out to be. recording: where it is recorded
        (None: where `take_trace` finds it).
        """
        self.check(prompt_ids, params, seed=seed)
        sequence = Sequence(
            request_id=self._next_id,
            prompt=prompt,
            prompt_ids=list(prompt_ids),
            params=params,
            seed=seed,
            stop=self._stops.of(params, list(behind)),
            arrival_s=self.recorder.now_s(),
            expected_ids=tuple(expected),
        )
        self._next_id += 1
        self._sequences[sequence.request_id] = sequence
        self.recorder.follow(sequence.request_id, recording)
        self._scheduler.add(sequence)
        return sequence.request_id

    def sequence(self, request_id: int) -> Sequence:
        """An unfinished request; the object stays readable after it ends."""
        return self._sequences[request_id]

    @_ON_ITS_DEVICE
    @torch.inference_mode()
    def score(self, token_ids: list[int]) -> torch.Tensor:
        """Logits `[tokens, vocab]` after each token, by a plain forward over blocks taken for the purpose."""
        blocks = self._blocks.allocate(self._blocks.blocks_for(len(token_ids)))
        try:
            tokens = torch.tensor([token_ids], device=self._runner.device)
            step = causal_step_at(tokens, [0], [blocks], self._runner.block_size)
            logits = self._runner.run(ScorePhase(), step)[0]
            HostCopy(logits[:1, :1]).arrays()  # the work is done
            self._runner.executor.confirm()
            return logits
        finally:
            self._blocks.release(blocks)

    @_ON_ITS_DEVICE
    def cancel(self, request_id: int) -> Sequence | None:
        """End a request now, keeping its text so far; None if it is not (or no longer) in the engine."""
        sequence = self._sequences.get(request_id)
        if sequence is not None:
            self._finish(sequence, "cancelled")
        return sequence

    @_ON_ITS_DEVICE
    def cancel_all(self, but: Collection[int] = ()) -> list[Sequence]:
        """End every unfinished request. but: other than these."""
        self._drop_flight()
        self.recorder.interrupted()
        ending = [request_id for request_id in self._sequences if request_id not in but]
        return [sequence for request_id in ending if (sequence := self.cancel(request_id)) is not None]

    def waits(self, request_id: int) -> bool:
        """Has this request never had a place in the batch, so that it holds nothing?"""
        sequence = self._sequences.get(request_id)
        return sequence is not None and sequence.admitted_s is None and sequence in self._scheduler.waiting

    @_ON_ITS_DEVICE
    @torch.inference_mode()
    def step(self) -> list[Sequence]:
        """Compute prompt chunks and one round; returns the sequences whose text grew or that ended.

        Where the device works by itself the host's work costs no time of the device's: the next round is launched
        before this one's outcome is read, if it can be told from the outcome where that lies, and otherwise before this
        one's text is made; where its draft may be prepared already, so is all of the round but its start. Prompts that
        wait are computed behind this round, before its outcome is read.
        """
        if self._flight is None:
            self._launch()
        flight, self._flight = self._flight, None
        if flight is None:
            return []
        prepared = None
        try:
            advanced = flight.verification.advanced
            if advanced is not None and self._may_follow(flight) and self._scheduler.extend(self._limits.lookahead + 1):
                if self._proposer.now.needs_outcomes:
                    prepared = self._rounds.prepare(flight, advanced)
                else:
                    self._flight = self._rounds.follow(flight, advanced)
            elif self._runner.executor.runs_behind:
                self._prefill_behind(flight)
        except BaseException:
            self._settle(flight, self._rounds.observe)
            raise
        return self._settle(flight, partial(self._go_on, prepared))

    def _settle(self, flight: Flight, then: Callable[[Settled], None]) -> list[Sequence]:
        """Commit a round, do what comes `then`, and make the round's text, which is not lost if that raises; returns
        the sequences that took part.
        """
        settled = self._rounds.commit(flight, self._drop_flight)
        began_s = self._prefilling.settle(flight.behind)
        settled = replace(settled, flight=settled.flight.starting(began_s))
        if self._flight is not None:  # on the run's clock it begins now
            self._flight = self._flight.starting(settled.end_s)
        try:
            then(settled)
        finally:
            self._publish(settled)
        return [settled.flight.sequences[row] for row in settled.own]

    def _go_on(self, prepared: PreparedRound | None, settled: Settled) -> None:
        """Tell the proposer, and launch the next round if it is certain who takes part: the prepared one first."""
        if prepared is not None and self._rounds.fits(prepared, settled):
            self._flight = started = self._rounds.start(prepared)
            self._rounds.observe(settled)
            self._rounds.tell(started)
            return
        self._rounds.observe(settled)
        if self._flight is None and self._runner.executor.runs_behind and may_run_ahead(settled):
            for sequence in settled.flight.sequences:
                if sequence.is_complete:  # its text is still to be made; its blocks and its place are free
                    self._scheduler.remove(sequence)
            self._launch()

    @contextmanager
    def rehearsal(self) -> Iterator[Recording]:
        """Requests within this are recorded where nobody looks, find no cached prefix and leave none, teach nothing,
        and are cancelled at its end. Raises ConfigError while there are others.
        """
        if self.has_work:
            raise ConfigError("requests are under way: warm up before them")
        self._proposer.do(methodcaller("remember"))
        counted, self.recorder.totals = self.recorder.totals, Totals()
        try:
            with self._blocks.without_reuse(), self._rounds.preparing.always():
                try:
                    yield self.recorder.recording()
                finally:
                    self.cancel_all()
        finally:
            self.recorder.totals = counted
            self._proposer.do(methodcaller("restore"))

    @_ON_ITS_DEVICE
    def take_trace(self) -> Trace:
        """What was recorded since the last call of requests that nobody records otherwise; it starts afresh."""
        return self.recorder.unclaimed.take().trace()

    @_ON_ITS_DEVICE
    def close(self) -> None:
        """End every request and free everything, each also where another cannot be; calling it twice is fine."""
        self._closed = True
        with ExitStack() as closing:
            closing.callback(self._on_close)
            closing.callback(self._runner.executor.release)
            closing.callback(self._proposer.now.close)
            self.cancel_all()

    def _launch(self) -> None:
        """Make room, compute prompt chunks, and start a round of all sequences that are past their prompt."""
        start_s = self.recorder.now_s()
        chunks = self._scheduler.schedule()
        self._preemptions += len(self._scheduler.preempted)
        for sequence in self._scheduler.preempted:
            self._proposer.do(methodcaller("suspend", sequence))
        self._note_admitted(start_s)
        self._prefilling.compute(chunks)
        sequences = self._scheduler.ready()
        if not sequences:
            return
        launched = self._rounds.launch(sequences, self.recorder.now_s())
        self._flight = replace(launched, behind=self._prefilling.take_launched())

    def _prefill_behind(self, flight: Flight) -> None:
        """Compute chunks of prompts that wait behind a round that runs: the device needs no word from the host then."""
        start_s = self.recorder.now_s()
        chunks = self._scheduler.schedule_behind(len(flight.sequences), self._limits.lookahead + 1)
        self._note_admitted(start_s)
        self._prefilling.compute(chunks)

    def _note_admitted(self, moment_s: float) -> None:
        for sequence in self._scheduler.running:
            if sequence.admitted_s is None:
                sequence.admitted_s = moment_s

    def _may_follow(self, flight: Flight) -> bool:
        """May the next round be launched, or prepared, before this one's outcome is read?"""
        now = self._proposer.now
        if (now.needs_outcomes and not now.looks_up) or self._scheduler.may_admit:
            return False
        return may_follow(flight, self._limits, len(self._scheduler.running))

    def _drop_flight(self) -> None:
        """Forget what was launched, once the device is done with it."""
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.verification.wait()

    def _publish(self, settled: Settled) -> None:
        """Make the round's text, record it, and let go of the requests that ended."""
        flight = settled.flight
        # a round that runs already began where this one ended
        self._rounds.publish(settled, None if self._flight is None else self._flight.start_s)
        for row in settled.own:
            sequence = flight.sequences[row]
            if not settled.verified.finite[row]:
                wipe(self._runner, self._scheduler.discard(sequence))
                self._finish(sequence, "error")
                sequence.error = NonFiniteLogitsError(
                    f"request {sequence.request_id}: the target's logits after token {flight.rows.lengths[row]} hold "
                    "NaN or infinity: check the weights and the dtype (float16 overflows where bfloat16 does not)"
                )
            elif sequence.finish_reason is not None:
                self._finish(sequence, sequence.finish_reason)

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        if sequence.end_s is not None:
            return
        if reason in ("cancelled", "error"):
            sequence.stop.finish()
        sequence.finish_reason = reason
        sequence.end_s = self.recorder.now_s()
        self._scheduler.remove(sequence)
        self._proposer.now.forget(sequence)
        sequence.memory.clear()  # callers keep their sequences, and features of the target may lie there
        sequence.last_round = None  # whose numbers belong to the whole batch
        self._sequences.pop(sequence.request_id, None)
        self.recorder.request(sequence)
