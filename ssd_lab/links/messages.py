"""What travels over a link between the engine and a draft worker: rounds one way, proposals the other."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ssd_lab.execution.device_tensor import DeviceTensor
from ssd_lab.rounds.prompt_lines import PromptPart
from ssd_lab.rounds.rows import KnownState, RowBatch, SamplingRow, StateOnDevice

Outcome = tuple[int, int]  # accepted length, recovery token
NO_OUTCOME = -1  # in place of an accepted length


@dataclass(frozen=True)
class PrefillMessage:
    """Compute K/V of these parts of texts. No reply."""

    parts: list[PromptPart]


@dataclass(frozen=True)
class RequestControl:
    """What seldom changes of a request. text: all its tokens, for a worker that looks at texts and has not seen this
    one; what is added to it comes with each round.
    """

    block_table: list[int]
    sampling: SamplingRow
    text: list[int] | None = None


@dataclass(frozen=True)
class ControlMessage:
    """Who takes part from now on, sent only when that changes. No reply.

    number: one more each time, so that none can be missed. request_ids: the rows of the rounds that follow, in order.
    new: those that are new or have others than before. grown: blocks behind those that a request had. The others are as
    they were, unless `whole`, where nothing that was told before counts.
    """

    number: int
    request_ids: list[int]
    new: dict[int, RequestControl] = field(default_factory=dict)
    grown: dict[int, list[int]] = field(default_factory=dict)
    whole: bool = False


@dataclass(frozen=True)
class RoundMessage:
    """What became of the rows since their last round; sent every round, and answered with a `Proposal`.

    control: number of the latest `ControlMessage`, which says whose rows these are. num_accepted `[batch]`: previous
    accepted length, `NO_OUTCOME` for a sequence that had no round yet, or whose last was drafted elsewhere. With the
    last token, the recovery token, it is the outcome. elsewhere: accepted lengths in the previous round of other
    sequences, by request id: of those that ended with it, or whose draft came from elsewhere. round_s: how long that
    round took, from asking for its draft tokens to its outcome (None: not known). new_tokens `[batch, n]`: what was
    added to each text, for a worker that looks at them; rows that got fewer end with zeros. away: outcomes of sequences
    that gave up their blocks for a while, by request id; they come back with the same outcome, perhaps in this round.
    """

    control: int
    state: KnownState | StateOnDevice
    num_accepted: torch.Tensor
    elsewhere: dict[int, int] = field(default_factory=dict)
    round_s: float | None = None
    new_tokens: torch.Tensor | None = None
    away: dict[int, Outcome] = field(default_factory=dict)


@dataclass(frozen=True)
class Lookup:
    """What is prepared for the outcomes of a round that the host has not read yet? A worker of this process says so at
    once (`ForHits`), and learns nothing by it.

    decided `[batch, n]`: accepted length and recovery token of each row, then what is of no account; rows of padding
    may follow. rows: of the round that comes then; their state lies on the same device, and is made before `decided`.
    """

    request_ids: list[int]
    decided: DeviceTensor
    rows: RowBatch


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


Message = PrefillMessage | ControlMessage | RoundMessage | KeptMessage | RememberMessage | RestoreMessage
