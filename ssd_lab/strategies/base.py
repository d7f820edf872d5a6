"""What a strategy is: one pydantic model (its fields are its knobs) that builds a proposer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from ssd_lab.drafting.proposer import Proposer
from ssd_lab.drafting.resources import Resources
from ssd_lab.errors import ConfigError
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.eagle3.config import Eagle3Config
from ssd_lab.simulate.scenario import Drafting, Scenario
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
