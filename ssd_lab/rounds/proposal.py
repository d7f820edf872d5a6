"""What a proposer hands to verification."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ssd_lab.execution.host_copy import HostCopy
from ssd_lab.execution.stopwatch import Span
from ssd_lab.execution.structure import flatten
from ssd_lab.rounds.recorded_tree import RecordedTree
from ssd_lab.rounds.token_tree import TokenTree


@dataclass(frozen=True)
class Proposal:
    """Draft tokens for the rows of one round.

    tokens: `[batch, k]`, int64; k may be 0. num_drafted: how many of a row's k are real. probs: `[batch, k, vocab]`,
    the distribution each token was drawn from, or None if every token is a certain guess (and always at temperature 0,
    where only the tokens count). origins: which path made each row's tokens. cache_hits: was the previous outcome
    prepared (None: no cache or no previous outcome). predicted_hits: how likely that was thought to be (None: nobody
    thought, or no lookup). tree: how the tokens hang together if they are no chain; k is then the number of nodes, and
    `probs` `[batch, rows, vocab]` are what siblings were drawn from. was_prepared: are all rows answered by what a
    lookup on the device finds (None: there was nothing to look up)?

    For the trace alone: token_probs: `[batch, k]`, the draft's probability of each token. raw_probs: `probs` before
    Saguaro sampling. previous_trees: what was drafted while earlier rounds were verified. activities: the draft's since
    the last proposal, on the monotonic clock.
    """

    tokens: torch.Tensor
    num_drafted: list[int]
    probs: torch.Tensor | None
    origins: list[str]
    cache_hits: list[bool | None]
    token_probs: torch.Tensor | None = None
    previous_trees: list[RecordedTree] = field(default_factory=list)
    activities: list[Span] = field(default_factory=list)
    predicted_hits: list[float | None] | None = None
    tree: TokenTree | None = None
    raw_probs: torch.Tensor | None = None
    was_prepared: bool | None = None

    def tensors(self) -> list[torch.Tensor]:
        """All that the receiver reads on a device."""
        return list(flatten((self.tokens, self.probs, self.token_probs, self.raw_probs, self.tree))[0])

    def problem(self, batch: int, lookahead: int, vocab_size: int, *, nodes: int | None = None) -> str | None:
        """What makes this unfit for a round of `batch` sequences; None if nothing does. nodes: the most of a tree."""
        tokens, probs = self.tokens, self.probs
        if not isinstance(tokens, torch.Tensor) or tokens.dtype != torch.int64 or tokens.ndim != 2:
            return "tokens must be an int64 tensor [sequences, k]"
        k = tokens.shape[1]
        if len(tokens) != batch:
            return f"tokens has {len(tokens)} rows for {batch} sequences"
        most = lookahead if self.tree is None or nodes is None else nodes
        if k > most:
            return f"tokens holds {k} tokens a sequence, and the strategy declared at most {most}"
        if self.tree is not None and (problem := self.tree.problem(batch, k, lookahead)) is not None:
            return problem
        for name in ("num_drafted", "origins", "cache_hits"):
            if len(getattr(self, name)) != batch:
                return f"{name} has {len(getattr(self, name))} entries for {batch} sequences"
        if any(not 0 <= number <= k for number in self.num_drafted):
            return f"num_drafted is {self.num_drafted}, and tokens holds {k} a sequence"
        rows = k if self.tree is None or probs is None else probs.shape[1]
        if probs is not None and tuple(probs.shape) != (batch, rows, vocab_size):
            return f"probs has shape {list(probs.shape)}; [sequences, k, vocab] is {[batch, k, vocab_size]}"
        # a read that a GPU would have to wait for; there the lookup of a wrong id fails by itself
        if tokens.device.type == "cpu" and bool(((tokens < 0) | (tokens >= vocab_size)).any()):
            return f"tokens holds ids outside 0..{vocab_size - 1}"
        return None

    @classmethod
    def empty(cls, batch: int, device: torch.device | str = "cpu") -> Proposal:
        """No draft tokens: the round is an autoregressive step."""
        tokens = torch.zeros(batch, 0, dtype=torch.int64, device=device)
        return cls(tokens, [0] * batch, None, ["none"] * batch, [None] * batch)


@dataclass(frozen=True)
class ForHits:
    """What a round's proposal is if branches answer all rows' outcomes, made where the outcomes lie before the host has
    read them. answered `[batch]`, bool, on its way to the host: does one?
    """

    proposal: Proposal
    answered: HostCopy
