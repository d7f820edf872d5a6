"""The round: the draft is asked, verification started, its outcome read, committed, and made into text and records."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from operator import methodcaller
from typing import Any

import torch

from ssd_lab.config import EngineConfig
from ssd_lab.engine.commit import append_outcome, make_text
from ssd_lab.engine.flight import Flight, PreparedRound, Settled, rows_of
from ssd_lab.engine.guarded_proposer import GuardedProposer
from ssd_lab.engine.limits import EngineLimits
from ssd_lab.engine.preparing import Preparing
from ssd_lab.engine.recorder import Recorder
from ssd_lab.engine.round_records import RoundTimes
from ssd_lab.engine.scheduler import Scheduler
from ssd_lab.errors import DraftWorkerError
from ssd_lab.execution.host_copy import sent
from ssd_lab.phases.verification import Verification, VerifyOptions
from ssd_lab.phases.verify import launch_verify, ready_verify
from ssd_lab.phases.verify_tree import launch_verify_tree
from ssd_lab.rounds.placement import Placement
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import RowBatch, StateOnDevice
from ssd_lab.rounds.runner import StepRunner
from ssd_lab.rounds.sequence import Sequence
from ssd_lab.rounds.verified import Verified

LATE_S = 3e-4  # a lookup is there a little after the outcome that it looks up; more was spent on the tree


class Rounds:
    """Launches rounds and settles them; who takes part is the engine's matter. blocks_per_row: the most blocks that a
    row's table holds.
    """

    def __init__(
        self,
        runner: StepRunner,
        proposer: GuardedProposer,
        config: EngineConfig,
        limits: EngineLimits,
        scheduler: Scheduler,
        recorder: Recorder,
        *,
        blocks_per_row: int,
    ) -> None:
        self._runner, self._proposer, self._limits = runner, proposer, limits
        self._scheduler, self._recorder = scheduler, recorder
        self.preparing = Preparing()
        self._draft_is_late = False
        self._last_end_s = float("-inf")  # when the latest outcome was there
        self._placement = Placement(
            runner.device,
            max_rows=config.max_batch,
            width=blocks_per_row,
            block_size=runner.block_size,
            bucket=runner.executor.bucket,
        )
        runner.executor.keep_in_place(self._placement.buffers())
        self._options = VerifyOptions(
            record=config.record,
            details=config.record_details if config.record else 0,
            feature_layers=proposer.now.feature_layers,
            advance=runner.executor.runs_behind and (not proposer.now.needs_outcomes or proposer.now.looks_up),
        )

    def launch(self, sequences: list[Sequence], start_s: float) -> Flight:
        """A round of these sequences, as they stand."""
        return self._start(sequences, rows_of(sequences), start_s)

    def follow(self, flight: Flight, advanced: torch.Tensor) -> Flight:
        """The round after `flight`, from its outcome where that lies on the device, `advanced`."""
        start_s = self._recorder.now_s()
        return self._start(flight.sequences, self._rows_behind(flight, advanced), start_s)

    def prepare(self, flight: Flight, advanced: torch.Tensor) -> PreparedRound | None:
        """The round after `flight`, as it is if its draft is prepared already, down to what a graph of it reads; None
        if the proposer has nothing, or it does not pay (`Preparing`). The ordinary way to that round stays open.
        """
        if not self.preparing.pays(len(flight.sequences)):
            return None
        rows, after, sequences = self._rows_behind(flight, advanced), flight.verification, flight.sequences
        prepared = self._proposer.do(lambda own: own.for_hits(sequences, rows, after.decided, after.features))
        if prepared is None:
            return None
        placed, bounds = self._placement.place(rows, num_drafted=prepared.proposal.num_drafted)
        verification = ready_verify(self._runner, placed, bounds, prepared.proposal, self._options)
        self.preparing.prepared()
        return PreparedRound(after, sequences, rows, verification, prepared.answered)

    def fits(self, prepared: PreparedRound, settled: Settled) -> bool:
        """Is it the round that would be launched now?"""
        start_s, fits = time.perf_counter(), prepared.fits(settled)
        self._draft_is_late = time.perf_counter() - start_s > LATE_S
        return fits

    def start(self, prepared: PreparedRound) -> Flight:
        """Start a prepared round, and what the draft has ready for it: first what the other one waited for last."""
        start_s = self._recorder.now_s()
        steps = [prepared.verification.launch, lambda: self._proposer.do(methodcaller("start_ahead"))]
        for step in reversed(steps) if self._draft_is_late else steps:
            step()
        verification = prepared.verification.send()
        return Flight(prepared.sequences, prepared.rows, verification, start_s, start_s, was_prepared=True)

    def tell(self, started: Flight) -> None:
        """Have the proposer draft for a round that was started: it learns what it always learns, and answers with what
        is verified already. One that is lost, or late, leaves the round as it is.
        """
        verification, sequences = started.verification, started.sequences
        proposal = self._proposer.propose(sequences, rows_of(sequences))
        self.preparing.saw(proposal.was_prepared)
        if proposal.num_drafted == verification.proposal.num_drafted:
            verification.proposal = proposal
        self._proposer.do(methodcaller("work_ahead"))

    def _rows_behind(self, flight: Flight, advanced: torch.Tensor) -> RowBatch:
        rows = rows_of(flight.sequences)
        longest = max(rows.lengths) + self._limits.lookahead + 1
        return replace(rows, state=StateOnDevice(advanced, longest))

    def _start(self, sequences: list[Sequence], rows: RowBatch, start_s: float) -> Flight:
        proposal = self._proposer.propose(sequences, rows)
        self.preparing.saw(proposal.was_prepared)
        flight = self.verify(sequences, rows, proposal, start_s)
        if (paths := flight.verification.paths) is not None:
            self._proposer.do(lambda proposer: proposer.keep(paths))
        self._proposer.do(methodcaller("work_ahead"))
        return flight

    def verify(self, sequences: list[Sequence], rows: RowBatch, proposal: Proposal, start_s: float) -> Flight:
        """Start the verification of a proposal."""
        verify_start_s = self._recorder.now_s()
        placed, bounds = self._placement.place(rows, num_drafted=proposal.num_drafted)
        verification: Verification[Any]
        if proposal.tree is None:
            verification = launch_verify(self._runner, placed, bounds, proposal, self._options)
        else:
            verification = launch_verify_tree(self._runner, placed, bounds, proposal, proposal.tree, self._options)
        return Flight(sequences, rows, verification, start_s, verify_start_s)

    def commit(self, flight: Flight, drop_next: Callable[[], None]) -> Settled:
        """Read the outcome and append to each text what belongs to it. drop_next: as in `collect`."""
        flight, verified = self.collect(flight, drop_next)
        end_s = self._recorder.now_s()
        self._note_end(flight, end_s)
        own = [row for row, sequence in enumerate(flight.sequences) if sequence.end_s is None]  # not ended meanwhile
        appended = [self._append(sequence, row, verified) for row, sequence in enumerate(flight.sequences)]
        return Settled(flight, verified, own, appended, end_s)

    def collect(self, flight: Flight, drop_next: Callable[[], None]) -> tuple[Flight, Verified]:
        """The outcome. A round whose draft was not made of numbers is done again without one, after `drop_next`: what
        was launched behind it.
        """
        if isinstance(flight.rows.state, StateOnDevice):  # it was launched before the host knew where
            flight = replace(flight, rows=rows_of(flight.sequences))
        verified = flight.verification.collect()
        if all(verified.draft_finite):
            return flight, verified
        drop_next()
        self._proposer.go_on_without_draft(
            DraftWorkerError("the draft's probabilities hold NaN or infinity: check its weights and dtype")
        )
        empty = Proposal.empty(len(flight.sequences))
        again = self.verify(flight.sequences, flight.rows, empty, flight.start_s)
        return again, again.verification.collect()

    def _note_end(self, flight: Flight, end_s: float) -> None:
        last_s, self._last_end_s = self._last_end_s, end_s
        # an engine that stood still, or computed prompts, says nothing
        follows = not flight.behind and flight.start_s - last_s < end_s - flight.start_s
        self.preparing.ended(
            len(flight.sequences),
            end_s - last_s if follows else None,
            was_prepared=flight.was_prepared,
            has_hit=flight.was_prepared or bool(flight.verification.proposal.was_prepared),
        )

    def observe(self, settled: Settled) -> None:
        """Tell the proposer of the requests that go on; of one that has ended it hears no more."""
        rows, features = settled.decided, settled.flight.verification.features
        if features is not None and len(rows) < len(settled.flight.sequences):
            features = features[sent(rows, features.device, torch.int64)]
        sequences = [settled.flight.sequences[row] for row in rows]
        self._proposer.do(lambda proposer: proposer.observe(sequences, features))

    def publish(self, settled: Settled, next_start_s: float | None) -> None:
        """Make the round's text and record it. next_start_s: when the next round began, if one runs already."""
        flight, verified = settled.flight, settled.verified
        logits, longest = flight.verification.logits, self._limits.max_model_len
        emitted = [
            make_text(sequence, count, longest, logits[row])
            for row, (sequence, count) in enumerate(zip(flight.sequences, settled.appended, strict=True))
        ]
        end_s = self._recorder.now_s() if next_start_s is None else next_start_s
        times = RoundTimes(flight.start_s, flight.verify_start_s, settled.end_s, end_s)
        proposal = flight.verification.proposal
        self._recorder.round(flight.sequences, flight.rows.lengths, proposal, verified, settled.own, emitted, times)

    def _append(self, sequence: Sequence, row: int, verified: Verified) -> int:
        """Append the outcome as far as it belongs to the text; returns how many tokens were appended."""
        if not verified.finite[row] or sequence.end_s is not None:
            return 0
        if sequence.first_token_s is None:
            sequence.first_token_s = self._recorder.now_s()
        appended = append_outcome(sequence, row, verified, self._limits.max_model_len)
        self._scheduler.register_full_blocks(sequence, self._proposer.now.cached_tokens(sequence))
        return appended
