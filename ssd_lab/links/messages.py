"""What travels over a link between the engine and a draft worker: rounds one way, proposals the other."""

from __future__ import annotations

from dataclasses import dataclass, field

from ssd_lab.execution.device_tensor import DeviceTensor
from ssd_lab.rounds.rows import RowBatch

Outcome = tuple[int, int]  # accepted length, recovery token


@dataclass(frozen=True)
class PrefillMessage:
    """Compute K/V of these tokens, which stand at `start` and after it. No reply."""

    token_ids: list[int]
    start: int
    block_table: list[int]


@dataclass(frozen=True)
class RoundMessage:
    """The sequences of the next round, with the outcome of their previous one. It is answered with a `Proposal`.

    num_accepted: previous accepted length, None for a sequence that had no round yet (or whose last was drafted
    elsewhere). With the last token, the recovery token, it is the outcome. accepted: the same of all sequences of the
    previous round, also of those that ended with it, by request id; round_s: how long that round took, from asking for
    its draft tokens to its outcome (None: not known). away: outcomes of sequences that gave up their blocks for a
    while, by request id; they come back with the same outcome, perhaps in this round. texts: all tokens of each
    sequence, where the plan asks for them.
    """

    request_ids: list[int]
    rows: RowBatch
    num_accepted: list[int | None]
    accepted: dict[int, int] = field(default_factory=dict)
    round_s: float | None = None
    texts: list[list[int]] | None = None
    away: dict[int, Outcome] = field(default_factory=dict)


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
