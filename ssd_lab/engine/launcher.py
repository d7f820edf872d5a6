"""A round launched: the draft is asked, the rows are placed, verification is started; and its outcome read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from operator import methodcaller
from typing import Any

import torch

from ssd_lab.config import EngineConfig
from ssd_lab.engine.flight import Flight
from ssd_lab.engine.guarded_proposer import GuardedProposer
from ssd_lab.engine.limits import EngineLimits
from ssd_lab.engine.recorder import Recorder
from ssd_lab.errors import DraftWorkerError
from ssd_lab.phases.verification import Verification, VerifyOptions
from ssd_lab.phases.verify import launch_verify
from ssd_lab.phases.verify_tree import launch_verify_tree
from ssd_lab.rounds.placement import Placement
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import KnownState, RowBatch, StateOnDevice
from ssd_lab.rounds.runner import StepRunner
from ssd_lab.rounds.sequence import Sequence
from ssd_lab.rounds.verified import Verified


class Launcher:
    """blocks_per_row: the most blocks that a row's table holds."""

    def __init__(
        self,
        runner: StepRunner,
        proposer: GuardedProposer,
        config: EngineConfig,
        limits: EngineLimits,
        recorder: Recorder,
        *,
        blocks_per_row: int,
    ) -> None:
        self._runner, self._proposer, self._limits, self._recorder = runner, proposer, limits, recorder
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
            advance=runner.executor.runs_behind and not proposer.now.needs_outcomes,
        )

    def launch(self, sequences: list[Sequence], start_s: float) -> Flight:
        """A round of these sequences, as they stand."""
        return self._start(sequences, rows_of(sequences), start_s)

    def follow(self, flight: Flight, advanced: torch.Tensor) -> Flight:
        """The round after `flight`, from its outcome where that lies on the device, `advanced`."""
        start_s, rows = self._recorder.now_s(), rows_of(flight.sequences)
        longest = max(rows.lengths) + self._limits.lookahead + 1
        return self._start(flight.sequences, replace(rows, state=StateOnDevice(advanced, longest)), start_s)

    def _start(self, sequences: list[Sequence], rows: RowBatch, start_s: float) -> Flight:
        flight = self.verify(sequences, rows, self._proposer.propose(sequences, rows), start_s)
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


def rows_of(sequences: list[Sequence]) -> RowBatch:
    """The sequences of a round as they stand."""
    return RowBatch(
        KnownState(
            lengths=[len(sequence.token_ids) for sequence in sequences],
            previous_tokens=[sequence.token_ids[-2:][0] for sequence in sequences],
            last_tokens=[sequence.token_ids[-1] for sequence in sequences],
        ),
        block_tables=[sequence.blocks for sequence in sequences],
        sampling=[sequence.sampling_row for sequence in sequences],
    )
