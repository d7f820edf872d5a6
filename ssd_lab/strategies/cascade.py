"""Cascade: a cheap drafter first, and for the sequences that it has nothing for, another one.

The usual pair is n-gram and draft model: text that repeats itself costs no drafting, everything else is drafted as
without the cascade. Which of the two drafts depends on the text alone, so each path is as exact as its strategy.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import ClassVar

import torch
from pydantic import Field, model_validator

from ssd_lab.drafting.composition import propose_some, replace_rows
from ssd_lab.drafting.proposer import Proposer
from ssd_lab.drafting.resources import Resources
from ssd_lab.errors import ConfigError
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
from ssd_lab.strategies.registry import registry
from ssd_lab.strategies.step_sizes import StepSizes


@registry.register
class Cascade(StrategyConfig):
    """One strategy drafts where it finds enough, another drafts the rest."""

    strategy_name: ClassVar[str] = "cascade"
    needs_draft: ClassVar[bool] = True

    first: NestedStrategy = Field(
        "prompt_lookup", validate_default=True, description="asked for every sequence: a name, or its fields too"
    )
    second: NestedStrategy = Field(
        "sync_chain", validate_default=True, description="asked for the sequences for which the first found too little"
    )
    least: int = Field(2, ge=1, le=32, description="draft tokens of the first that are enough")

    @model_validator(mode="after")
    def _fits(self) -> Cascade:
        if self.least > self.first.lookahead:
            raise ValueError(
                f"least is {self.least}, and {self.first.strategy_name} never drafts more than {self.first.lookahead} "
                "tokens: the second would draft everything"
            )
        if not (self.first.exact and self.second.exact):
            raise ValueError("both strategies must be exact")
        return self

    @property
    def overlaps(self) -> bool:  # type: ignore[override]  # a constant of most strategies, here that of the parts
        """Does the draft of either part work while the target does?"""
        return self.first.overlaps or self.second.overlaps

    @property
    def reads_expected(self) -> bool:  # type: ignore[override]
        """Does either part?"""
        return self.first.reads_expected or self.second.reads_expected

    def works_beside(self, link: str, device: str) -> bool:
        """Does the draft of either part?"""
        return self.first.works_beside(link, device) or self.second.works_beside(link, device)

    @property
    def uses_draft(self) -> bool:
        """Does either part?"""
        return self.first.uses_draft or self.second.uses_draft

    @property
    def lookahead(self) -> int:
        """The longer of the two."""
        return max(self.first.lookahead, self.second.lookahead)

    @property
    def step_sizes(self) -> StepSizes:
        """The larger of each."""
        return self.first.step_sizes.joined(self.second.step_sizes)

    @property
    def reserved_positions(self) -> int:
        """The larger of the two, however the rows of a round are drafted."""
        return max(self.lookahead, self.first.reserved_positions, self.second.reserved_positions)

    @property
    def scenario(self) -> Scenario:
        """A lookup, else a chain. Raises ConfigError for other parts."""
        parts = (self.first.scenario.drafted_by, self.second.scenario.drafted_by)
        if parts != ("lookup", "chain"):
            raise ConfigError(f"the simulator draws cascades of a lookup and a chain, not of {' and '.join(parts)}")
        return Scenario(self.strategy_name, self.second.lookahead, drafting="cascade")

    def head_config(self, target: str, shape: ModelConfig) -> Eagle3Config | None:
        """Of the part that has one, unless the other has a draft model, beside which a head counts for little."""
        if self.uses_draft:
            return None
        return self.first.head_config(target, shape) or self.second.head_config(target, shape)

    def build(self, resources: Resources) -> Proposer:
        """Both proposers, one behind the other."""
        with ExitStack() as unfinished:
            first = self.first.build(resources)
            unfinished.callback(first.close)
            second = self.second.build(resources)
            unfinished.callback(second.close)
            both = CascadeProposer(first, second, self.least)
            unfinished.pop_all()
        return both


class CascadeProposer(ForwardingProposer):
    """Asks the second proposer for the rows of which the first drafted fewer than `least` tokens."""

    def __init__(self, first: Proposer, second: Proposer, least: int) -> None:
        super().__init__(first, second)
        self._least = least
        self._short: list[int] = []  # the rows of this round that the second drafted

    def propose(self, sequences: list[Sequence], rows: RowBatch) -> Proposal:
        """The first one's drafts where they are long enough, else the second one's."""
        first, second = self._parts
        found = first.propose(sequences, rows)
        self._short = short = [row for row, count in enumerate(found.num_drafted) if count < self._least]
        if not short:
            return found
        return replace_rows(found, short, propose_some(second, short, sequences, rows))

    def keep(self, paths: torch.Tensor) -> None:
        """Each hears of its own trees."""
        first, second = self._parts
        if not self._short:
            first.keep(paths)
            return
        places = sent(self._short, paths.device, torch.int64)
        first.keep(paths.index_fill(0, places, -1))
        second.keep(paths.index_select(0, places))
