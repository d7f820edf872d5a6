"""A round on its way: launched, and later settled; and when the next one may be launched before that is done."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ssd_lab.engine.limits import EngineLimits
from ssd_lab.engine.prefilling import LaunchedPrefill
from ssd_lab.execution.host_copy import HostCopy
from ssd_lab.phases.verification import Verification
from ssd_lab.rounds.rows import KnownState, RowBatch
from ssd_lab.rounds.sequence import Sequence
from ssd_lab.rounds.verified import Verified


@dataclass(frozen=True)
class Flight:
    """A launched round: its sequences, their verification, and when it began and was launched (the run's seconds).
    behind: prompts that the device computes before it. was_prepared: it was started, not launched.
    """

    sequences: list[Sequence]
    rows: RowBatch
    verification: Verification[Any]
    start_s: float
    verify_start_s: float
    behind: list[LaunchedPrefill] = field(default_factory=list)
    was_prepared: bool = False

    def starting(self, moment_s: float) -> Flight:
        """The round as it is where it began no earlier than that."""
        start_s = max(self.start_s, moment_s)
        return replace(self, start_s=start_s, verify_start_s=max(self.verify_start_s, start_s))


@dataclass(frozen=True)
class PreparedRound:
    """The round behind another one, `after`, if what was prepared answers all its outcomes: it need only be started.
    answered `[batch]`, bool, on its way to the host: does it?
    """

    after: Verification[Any]
    sequences: list[Sequence]
    rows: RowBatch
    verification: Verification[Any]
    answered: HostCopy

    def fits(self, settled: Settled) -> bool:
        """Is it what would be launched now? Waits for the device's word where everything else allows it."""
        return (
            settled.flight.verification is self.after
            and len(settled.own) == len(self.sequences)
            and may_run_ahead(settled)
            and not any(sequence.is_complete for sequence in self.sequences)
            and bool(self.answered.arrays()[0].all())
        )


@dataclass(frozen=True)
class Settled:
    """A round whose outcome is committed. own: the rows whose requests had not ended before. appended: tokens that each
    row got. end_s: when its outcome was there.
    """

    flight: Flight
    verified: Verified
    own: list[int]
    appended: list[int]
    end_s: float

    @property
    def decided(self) -> list[int]:
        """The rows with an outcome: a request whose logits are no numbers has none."""
        return [row for row in self.own if self.verified.finite[row]]


def rows_of(sequences: list[Sequence]) -> RowBatch:
    """The sequences of a round as they stand."""
    return RowBatch(
        KnownState.of(
            lengths=[len(sequence.token_ids) for sequence in sequences],
            previous_tokens=[sequence.token_ids[-2:][0] for sequence in sequences],
            last_tokens=[sequence.token_ids[-1] for sequence in sequences],
        ),
        block_tables=[sequence.blocks for sequence in sequences],
        sampling=[sequence.sampling_row for sequence in sequences],
    )


def may_follow(flight: Flight, limits: EngineLimits, num_running: int) -> bool:
    """May the next round be launched before this one's outcome is read? Its sequences must be those of this round
    whatever the outcome is; one that ends all the same takes part once more, in vain. num_running: how many sequences
    hold blocks.
    """
    most = limits.lookahead + 1
    return len(flight.sequences) == num_running and not any(
        s.end_s is not None
        or s.stop.by_text
        or s.params.logprobs
        or len(s.token_ids) + most >= min(len(s.prompt_ids) + s.params.max_tokens, limits.max_model_len)
        for s in flight.sequences
    )


def may_run_ahead(settled: Settled) -> bool:
    """Is it certain already who takes part in the next round, so that it can be launched before this one's text is
    made?
    """
    return all(settled.verified.finite) and not any(
        s.stop.by_text or s.params.logprobs for s in settled.flight.sequences
    )
