"""A strategy around another one: it says for which sequences that one may draft, the rest is handed on."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from pydantic import Field

from ssd_lab.drafting.composition import propose_some, replace_rows
from ssd_lab.drafting.proposer import Proposer
from ssd_lab.drafting.resources import Resources
from ssd_lab.execution.host_copy import sent
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.eagle3.config import Eagle3Config
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import RowBatch
from ssd_lab.rounds.sequence import Sequence
from ssd_lab.simulate.scenario import Scenario
from ssd_lab.strategies.base import StrategyConfig
from ssd_lab.strategies.components.forwarding import ForwardingProposer
from ssd_lab.strategies.components.nested import NestedStrategy
from ssd_lab.strategies.context import Context
from ssd_lab.strategies.step_sizes import StepSizes


class WrapperStrategy(StrategyConfig):
    """Base of strategies that pause another one: implement `drafts`. It is as exact as what it wraps, if `drafts` looks
    at nothing but its context.
    """

    needs_draft: ClassVar[bool] = True  # it may

    inner: NestedStrategy = Field(
        "sync_chain", validate_default=True, description="what drafts: a name, or its fields too"
    )

    @abstractmethod
    def drafts(self, context: Context) -> bool:
        """May the inner strategy draft for this sequence now? If not, the round is an autoregressive step for it."""

    @property
    def exact(self) -> bool:  # type: ignore[override]  # a constant of most strategies, here that of the inner one
        """As the inner one."""
        return self.inner.exact

    @property
    def overlaps(self) -> bool:  # type: ignore[override]
        """As the inner one."""
        return self.inner.overlaps

    @property
    def reads_expected(self) -> bool:  # type: ignore[override]
        """Does the inner one?"""
        return self.inner.reads_expected

    @property
    def lookahead(self) -> int:
        """The inner one's."""
        return self.inner.lookahead

    @property
    def reserved_positions(self) -> int:
        """The inner one's."""
        return self.inner.reserved_positions

    @property
    def step_sizes(self) -> StepSizes:
        """The inner one's."""
        return self.inner.step_sizes

    @property
    def uses_draft(self) -> bool:
        """Does the inner one?"""
        return self.inner.uses_draft

    @property
    def scenario(self) -> Scenario:
        """That of the inner one, as if it never paused."""
        return self.inner.scenario

    def works_beside(self, link: str, device: str) -> bool:
        """Does the inner one's draft?"""
        return self.inner.works_beside(link, device)

    def head_config(self, target: str, shape: ModelConfig) -> Eagle3Config | None:
        """The inner one's."""
        return self.inner.head_config(target, shape)

    def build(self, resources: Resources) -> Proposer:
        """The inner one's proposer, asked where `drafts` allows it."""
        return PausingProposer(self, self.inner.build(resources), resources)


class PausingProposer(ForwardingProposer):
    """Hands everything on to another proposer, which is asked for some of the rows only."""

    def __init__(self, strategy: WrapperStrategy, inner: Proposer, resources: Resources) -> None:
        super().__init__(inner)
        self._strategy, self._inner, self._resources = strategy, inner, resources
        self._asked: list[int] | None = None  # rows of this round, None for all
        self._is_warming_up = False

    def propose(self, sequences: list[Sequence], rows: RowBatch) -> Proposal:
        """The inner one's, with nothing in the rows for which it pauses."""
        asked = list(range(len(sequences)))
        if not self._is_warming_up:
            asked = [row for row in asked if self._strategy.drafts(Context.of(sequences[row], self._resources))]
        self._asked = None if len(asked) == len(sequences) else asked
        if self._asked is None:
            return self._inner.propose(sequences, rows)
        nothing = Proposal.empty(len(sequences), self._resources.device)
        if not asked:
            return nothing
        return replace_rows(nothing, asked, propose_some(self._inner, asked, sequences, rows))

    def keep(self, paths: torch.Tensor) -> None:
        """Those of the rows that it drafted."""
        if self._asked is None:
            self._inner.keep(paths)
        elif self._asked:
            self._inner.keep(paths.index_select(0, sent(self._asked, paths.device, torch.int64)))

    def remember(self) -> None:
        """Warm-up requests follow, for which it never pauses."""
        self._is_warming_up = True
        super().remember()

    def restore(self) -> None:
        """They are over."""
        self._is_warming_up = False
        super().restore()
