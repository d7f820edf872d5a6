"""What a proposer hands to verification."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ssd_lab.trace.records import Activity, TreeRecord


@dataclass(frozen=True)
class Proposal:
    """Draft tokens for the rows of one round.

    tokens: `[batch, k]`, int64; k may be 0. num_drafted: how many of a row's k are real. probs: `[batch, k, vocab]`,
    the distribution each token was drawn from, or None if every token is a certain guess (and always at temperature 0,
    where only the tokens count). origins: which path made each row's tokens. cache_hits: was the previous outcome
    prepared (None: no cache or no previous outcome). For the trace alone: token_probs, the
    draft's probability of each token; previous_trees, what was drafted while the previous round was verified, by
    request id; activities of the draft since the last proposal, on
    the monotonic clock.
    """

    tokens: torch.Tensor
    num_drafted: list[int]
    probs: torch.Tensor | None
    origins: list[str]
    cache_hits: list[bool | None]
    token_probs: list[list[float]] | None = None
    previous_trees: dict[int, TreeRecord] = field(default_factory=dict)
    activities: list[Activity] = field(default_factory=list)

    @classmethod
    def empty(cls, batch: int, device: torch.device | str = "cpu") -> Proposal:
        """No draft tokens: the round is an autoregressive step."""
        tokens = torch.zeros(batch, 0, dtype=torch.int64, device=device)
        return cls(tokens, [0] * batch, None, ["none"] * batch, [None] * batch, [[] for _ in range(batch)])
