"""What travels over a link between the engine and a draft worker: one message each way per round."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ssd_lab.execution.device_tensor import DeviceTensor
from ssd_lab.execution.stopwatch import Span
from ssd_lab.execution.structure import flatten
from ssd_lab.rounds.recorded_tree import RecordedTree
from ssd_lab.rounds.rows import RowBatch, SamplingRow
from ssd_lab.rounds.token_tree import TokenTree

Outcome = tuple[int, int]  # accepted length, recovery token


@dataclass(frozen=True)
class PrefillMessage:
    """Compute K/V of these tokens, which stand at `start` and after it. No reply."""

    token_ids: list[int]
    start: int
    block_table: list[int]


@dataclass(frozen=True)
class RoundMessage:
    """The sequences of the next round, with the outcome of their previous one.

    num_accepted: previous accepted length, None for a sequence that had no round yet (or whose last was drafted
    elsewhere). With `last_tokens`, the recovery token, it is the outcome. accepted: the same of all sequences of the
    previous round, also of those that ended with it, by request id; round_s: how long that round took, from asking for
    its draft tokens to its outcome (None: not known). away: outcomes of sequences that gave up their blocks for a
    while, by request id; they come back with the same outcome, perhaps in this round. texts: all tokens of each
    sequence, where the plan asks for them. advanced: see `RowBatch`; only for a worker in the engine's own thread that
    needs no outcomes.
    """

    request_ids: list[int]
    lengths: list[int]
    previous_tokens: list[int]
    last_tokens: list[int]
    block_tables: list[list[int]]
    num_accepted: list[int | None]
    sampling: list[SamplingRow]
    accepted: dict[int, int] = field(default_factory=dict)
    round_s: float | None = None
    texts: list[list[int]] | None = None
    advanced: torch.Tensor | None = None
    away: dict[int, Outcome] = field(default_factory=dict)

    @property
    def rows(self) -> RowBatch:
        """The sequences themselves."""
        return RowBatch(
            *(self.lengths, self.previous_tokens, self.last_tokens, self.block_tables, self.sampling), self.advanced
        )


@dataclass(frozen=True)
class RoundReply:
    """The next draft tokens of each sequence: fields as in `engine.proposal.Proposal`."""

    tokens: torch.Tensor
    probs: torch.Tensor | None
    origins: list[str]
    cache_hits: list[bool | None]
    token_probs: torch.Tensor | None
    previous_tree: RecordedTree | None = None
    activities: list[Span] = field(default_factory=list)
    predicted_hits: list[float | None] | None = None
    tree: TokenTree | None = None
    raw_probs: torch.Tensor | None = None

    def tensors(self) -> list[torch.Tensor]:
        """All that the receiver reads on a device."""
        own = (self.tokens, self.probs, self.token_probs, self.raw_probs)
        return list(flatten((*own, self.tree))[0])


@dataclass(frozen=True)
class KeptMessage:
    """Which nodes of each tree of the last reply are accepted, from the root down, then -1: `[rows, depth]`, perhaps
    followed by rows of padding. No reply.
    """

    paths: DeviceTensor


@dataclass(frozen=True)
class RememberMessage:
    """Keep what was learned so far. No reply."""


@dataclass(frozen=True)
class RestoreMessage:
    """Know again what was kept last, and nothing of the rounds since. No reply."""


Message = PrefillMessage | RoundMessage | KeptMessage | RememberMessage | RestoreMessage
