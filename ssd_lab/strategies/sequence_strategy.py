"""Strategies that draft for one sequence at a time, in plain Python."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator
from collections.abc import Sequence as SequenceABC
from dataclasses import dataclass

import torch

from ssd_lab.drafting.proposer import Proposer
from ssd_lab.drafting.resources import Resources
from ssd_lab.errors import ProposerError
from ssd_lab.execution.host_copy import sent
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import RowBatch
from ssd_lab.rounds.sequence import Sequence
from ssd_lab.strategies.base import StrategyConfig
from ssd_lab.strategies.context import Context, Draft, Law, dense


class SequenceStrategy(StrategyConfig):
    """A strategy that drafts for one sequence at a time, in plain Python: implement `lookahead` and `draft`."""

    @abstractmethod
    def draft(self, context: Context) -> Draft | SequenceABC[int]:
        """Up to `lookahead` draft tokens for this sequence; an empty list makes the round an autoregressive step."""

    def build(self, resources: Resources) -> Proposer:
        """A proposer that asks `draft` for each sequence."""
        return SequenceProposer(self, resources)


@dataclass(frozen=True)
class Drawn:
    """A draft that was checked; probs `[n, vocab]`."""

    tokens: SequenceABC[int]
    probs: torch.Tensor | None = None
    origin: str = "custom"


class SequenceProposer(Proposer):
    """Turns per-sequence drafts into a proposal, checking what the strategy returns."""

    def __init__(self, strategy: SequenceStrategy, resources: Resources) -> None:
        self._strategy = strategy
        self._resources = resources
        self._vocab_size = resources.vocab_size
        self._device = resources.device
        self._certain: dict[tuple[int, int], torch.Tensor] = {}
        self._warm_up_lengths: Iterator[int] | None = None

    def remember(self) -> None:
        """Requests of a warm-up follow: they get made-up drafts of every length, and the strategy is not called."""
        self._warm_up_lengths = itertools.cycle(range(self._strategy.lookahead, -1, -1))

    def restore(self) -> None:
        """The warm-up is over: the strategy is called again."""
        self._warm_up_lengths = None

    def propose(self, sequences: list[Sequence], rows: RowBatch) -> Proposal:
        """Ask the strategy for each sequence and pad to the longest draft."""
        if self._warm_up_lengths is not None:
            drafts = [Drawn([0] * next(self._warm_up_lengths))] * len(sequences)
        else:
            drafts = [self._draft(sequence) for sequence in sequences]
        k = max(len(draft.tokens) for draft in drafts)
        tokens = torch.tensor([[*draft.tokens, *[0] * (k - len(draft.tokens))] for draft in drafts], dtype=torch.int64)
        tokens = sent(tokens.view(len(drafts), k), self._device)
        probs = None
        if not rows.all_greedy and any(draft.probs is not None for draft in drafts):
            probs = torch.zeros(len(drafts), k, self._vocab_size, device=self._device)
            probs.scatter_(-1, tokens.unsqueeze(-1), 1.0)
            for row, draft in enumerate(drafts):
                if draft.probs is not None:
                    probs[row, : len(draft.tokens)] = draft.probs.to(self._device)
        return Proposal(
            tokens=tokens,
            num_drafted=[len(draft.tokens) for draft in drafts],
            probs=probs,
            origins=[draft.origin if len(draft.tokens) else "none" for draft in drafts],
            cache_hits=[None] * len(drafts),
            token_probs=self._token_probs(drafts, k),
        )

    def _token_probs(self, drafts: list[Drawn], k: int) -> torch.Tensor:
        """`[sequences, k]`; certain guesses, which most are, have theirs on the device already."""
        if any(draft.probs is not None for draft in drafts):
            return torch.tensor([_token_probs(draft, k) for draft in drafts]).view(len(drafts), k)
        size = (len(drafts), k)
        if size not in self._certain:
            self._certain[size] = torch.ones(size, device=self._device)
        return self._certain[size]

    def _draft(self, sequence: Sequence) -> Drawn:
        returned = self._strategy.draft(Context.of(sequence, self._resources))
        draft = returned if isinstance(returned, Draft) else Draft(returned)
        name, limit = self._strategy.strategy_name, self._strategy.lookahead
        if not isinstance(draft.tokens, SequenceABC) or isinstance(draft.tokens, str):
            raise ProposerError(
                f"{name}.draft returned {type(returned).__name__}; return a Draft or a list of token ids"
            )
        if len(draft.tokens) > limit:
            raise ProposerError(f"{name}.draft returned {len(draft.tokens)} tokens; its lookahead is {limit}")
        wrong = [t for t in draft.tokens if not isinstance(t, int) or not 0 <= t < self._vocab_size]
        if wrong:
            raise ProposerError(
                f"{name}.draft returned {wrong[:3]!r}; token ids are ints from 0 to {self._vocab_size - 1}"
            )
        if draft.probs is None:
            return Drawn(draft.tokens, origin=draft.origin)
        probs = self._dense(name, draft.probs)
        self._check_probs(name, draft, probs)
        return Drawn(draft.tokens, probs, draft.origin)

    def _dense(self, name: str, probs: torch.Tensor | SequenceABC[Law]) -> torch.Tensor:
        """`[tokens, vocab]`."""
        if isinstance(probs, torch.Tensor) or not isinstance(probs, SequenceABC):
            return probs  # the check says what else it may be
        try:
            rows = [dense(law, self._vocab_size) for law in probs]
        except (ValueError, TypeError, AttributeError) as error:
            raise ProposerError(f"{name}.draft returned {error}; give {{token: p}} for each token") from error
        return torch.stack(rows) if rows else torch.zeros(0, self._vocab_size)

    def _check_probs(self, name: str, draft: Draft, probs: torch.Tensor) -> None:
        expected = (len(draft.tokens), self._vocab_size)
        if not isinstance(probs, torch.Tensor) or tuple(probs.shape) != expected:
            shape = list(probs.shape) if isinstance(probs, torch.Tensor) else type(probs).__name__
            raise ProposerError(f"{name}.draft returned probs of shape {shape}; [tokens, vocab] is {list(expected)}")
        if len(draft.tokens) and not bool(((probs >= 0).all() & ((probs.sum(-1) - 1).abs() < 1e-3).all()).item()):
            raise ProposerError(f"{name}.draft returned probs that are negative, not finite, or do not sum to 1")


def _token_probs(draft: Drawn, k: int) -> list[float]:
    """The probability of each draft token under what it was drawn from, padded to k."""
    if draft.probs is None or not draft.tokens:
        return [1.0] * k
    chosen = draft.probs.gather(1, torch.tensor(draft.tokens, device=draft.probs.device)[:, None]).squeeze(1).tolist()
    return chosen + [1.0] * (k - len(chosen))
