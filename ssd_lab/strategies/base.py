"""What a strategy is: one pydantic model (its fields are its knobs) that builds a proposer."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from collections.abc import Sequence as SequenceABC
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict

from ssd_lab.config import SamplingParams
from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.decoding.sampling import sample
from ssd_lab.drafting.proposer import Proposer
from ssd_lab.drafting.resources import Resources
from ssd_lab.errors import ConfigError, ProposerError
from ssd_lab.execution.host_copy import sent
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.eagle3.config import Eagle3Config
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import RowBatch
from ssd_lab.rounds.sequence import Sequence
from ssd_lab.simulate.scenario import Drafting, Scenario
from ssd_lab.strategies.components.expected_text import ExpectedText
from ssd_lab.strategies.step_sizes import StepSizes


class StrategyConfig(BaseModel, ABC):
    """Base of all strategies. Subclasses set `strategy_name`, declare their knobs as fields, and build a proposer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy_name: ClassVar[str]
    exact: ClassVar[bool] = True
    needs_draft: ClassVar[bool] = False  # may it draft with a model? (`uses_draft`: does it, with these fields?)
    draft_field: ClassVar[str | None] = None  # the field that names what drafts, where that is no model of its own
    reads_expected: ClassVar[bool] = False  # does it draft from what the caller expects the output to be?
    overlaps: ClassVar[bool] = False  # does the draft work while the target does, given a link that lets it?

    @property
    @abstractmethod
    def lookahead(self) -> int:
        """The most draft tokens that a round may keep: all of a chain, a path of a tree."""

    @property
    def reserved_positions(self) -> int:
        """Cache positions behind the committed tokens that a round may write: one for each draft token of a chain; a
        tree writes all its nodes, and its draft may write more.
        """
        return self.lookahead

    @property
    def step_sizes(self) -> StepSizes:
        """How large the steps are, for the memory plan; by default those of a chain of `lookahead` tokens."""
        return StepSizes(self.lookahead, chain=self.lookahead if self.uses_draft else 0)

    @property
    def uses_draft(self) -> bool:
        """Does it draft with a model of its own, with these fields?"""
        return self.needs_draft

    def works_beside(self, link: str, device: str) -> bool:
        """Does the draft work while the target does, with this `draft_link` on this kind of device? Decides how CPU
        threads are shared.
        """
        return self.overlaps and link != "inline"

    @property
    def scenario(self) -> Scenario:
        """How the simulator draws rounds of this strategy, here for one sequence: `dataclasses.replace` sets batch,
        rounds and seed. By default a chain of the draft model, or without one a lookup, of `lookahead` tokens.

        Raises ConfigError if nothing is known of its rounds.
        """
        if self.overlaps:
            raise ConfigError(
                f"{self.strategy_name} drafts while the target verifies: its `scenario` must say how that is drawn"
            )
        drafting: Drafting = "chain" if self.uses_draft else "lookup" if self.lookahead else "none"
        return Scenario(self.strategy_name, k=max(1, self.lookahead), drafting=drafting)

    def head_config(self, target: str, shape: ModelConfig) -> Eagle3Config | None:
        """The shape of the EAGLE head that this strategy loads for a target of this source and shape, if it does."""
        return None

    @abstractmethod
    def build(self, resources: Resources) -> Proposer:
        """Make the proposer that drafts for one engine."""


@dataclass(frozen=True)
class Context:
    """One sequence as a simple strategy sees it.

    token_ids: prompt and text so far. num_prompt: how many of them are the prompt. memory: a dictionary of the
    strategy's own for this request, kept between rounds. seed: the request's. expected_ids: what the caller thinks the
    output will be.
    """

    request_id: int
    token_ids: SequenceABC[int]
    num_prompt: int
    params: SamplingParams
    memory: dict[str, Any]
    seed: int = 0
    expected_ids: SequenceABC[int] = ()

    def expected(self, count: int) -> Draft | None:
        """Up to `count` tokens of what the caller expects, where the output is in it; None where it is not."""
        if not self.expected_ids:
            return None
        text = self.memory.setdefault("expected", None) or ExpectedText(self.expected_ids)
        self.memory["expected"] = text
        tokens = text.next(self.token_ids[self.num_prompt :], count)
        return Draft(tokens, origin="expected") if tokens else None

    def draw(self, probs: torch.Tensor, place: int) -> int:
        """Draw the draft token number `place` (0, 1, ...) of this round from `probs` `[vocab]`.

        The number that decides is a function of the request's seed and the token's position, so that a request's text
        is the same whatever else is in the batch. One draw for each place.
        """
        position = torch.tensor(len(self.token_ids) + place)
        return int(sample(probs, uniform(torch.tensor(self.seed), position, Purpose.DRAFT).to(probs.device)))


@dataclass(frozen=True)
class Draft:
    """Draft tokens for one sequence, and the distributions `[n, vocab]` they were drawn from (None: certain guesses).

    The text stays exact only if each token was drawn from the row given with it. origin: what made them, for the trace.
    """

    tokens: SequenceABC[int] = field(default_factory=list)
    probs: torch.Tensor | None = None
    origin: str = "custom"


class SequenceStrategy(StrategyConfig):
    """A strategy that drafts for one sequence at a time, in plain Python: implement `lookahead` and `draft`."""

    @abstractmethod
    def draft(self, context: Context) -> Draft | SequenceABC[int]:
        """Up to `lookahead` draft tokens for this sequence; an empty list makes the round an autoregressive step."""

    def build(self, resources: Resources) -> Proposer:
        """A proposer that asks `draft` for each sequence."""
        return SequenceProposer(self, resources)


class SequenceProposer(Proposer):
    """Turns per-sequence drafts into a proposal, checking what the strategy returns."""

    def __init__(self, strategy: SequenceStrategy, resources: Resources) -> None:
        self._strategy = strategy
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
            drafts = [Draft([0] * next(self._warm_up_lengths))] * len(sequences)
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

    def _token_probs(self, drafts: list[Draft], k: int) -> torch.Tensor:
        """`[sequences, k]`; certain guesses, which most are, have theirs on the device already."""
        if any(draft.probs is not None for draft in drafts):
            return torch.tensor([_token_probs(draft, k) for draft in drafts]).view(len(drafts), k)
        size = (len(drafts), k)
        if size not in self._certain:
            self._certain[size] = torch.ones(size, device=self._device)
        return self._certain[size]

    def _draft(self, sequence: Sequence) -> Draft:
        context = Context(
            sequence.request_id,
            tuple(sequence.token_ids),
            len(sequence.prompt_ids),
            sequence.params,
            sequence.memory,
            sequence.seed,
            sequence.expected_ids,
        )
        returned = self._strategy.draft(context)
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
        if draft.probs is not None:
            self._check_probs(name, draft, draft.probs)
        return draft

    def _check_probs(self, name: str, draft: Draft, probs: torch.Tensor) -> None:
        expected = (len(draft.tokens), self._vocab_size)
        if not isinstance(probs, torch.Tensor) or tuple(probs.shape) != expected:
            shape = list(probs.shape) if isinstance(probs, torch.Tensor) else type(probs).__name__
            raise ProposerError(f"{name}.draft returned probs of shape {shape}; [tokens, vocab] is {list(expected)}")
        if len(draft.tokens) and not bool(((probs >= 0).all() & ((probs.sum(-1) - 1).abs() < 1e-3).all()).item()):
            raise ProposerError(f"{name}.draft returned probs that are negative, not finite, or do not sum to 1")


def _token_probs(draft: Draft, k: int) -> list[float]:
    """The probability of each draft token under what it was drawn from, padded to k."""
    if draft.probs is None or not draft.tokens:
        return [1.0] * k
    chosen = draft.probs.gather(1, torch.tensor(draft.tokens, device=draft.probs.device)[:, None]).squeeze(1).tolist()
    return chosen + [1.0] * (k - len(chosen))
