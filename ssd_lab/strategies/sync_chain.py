"""Synchronous chain speculation: the draft decodes k tokens, then the target verifies them (arXiv 2211.17192)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ssd_lab.drafting.draft_worker import DraftPlan
from ssd_lab.drafting.proposer import Proposer
from ssd_lab.drafting.resources import Resources
from ssd_lab.learning.lookahead import LookaheadChooser
from ssd_lab.strategies.base import StrategyConfig
from ssd_lab.strategies.registry import registry


@registry.register
class SyncChain(StrategyConfig):
    """A draft model guesses k tokens one after another while the target waits."""

    strategy_name: ClassVar[str] = "sync_chain"
    needs_draft: ClassVar[bool] = True

    k: int = Field(
        6,
        ge=1,
        le=32,
        description="lookahead: draft tokens verified in one round, or the most of them; each costs one draft step",
    )
    draft_temperature: float | None = Field(
        None, ge=0, description="temperature of the draft where requests sample (default: the request's own)"
    )
    dynamic_lookahead: bool = Field(
        False, description="choose each round's draft tokens, at most k, by confidence and measured times"
    )

    @property
    def lookahead(self) -> int:
        """At most k draft tokens a round."""
        return self.k

    def build(self, resources: Resources) -> Proposer:
        """A draft worker in the engine's own thread, with no work of its own between rounds."""
        plan = DraftPlan(
            k=self.k,
            lookahead=LookaheadChooser if self.dynamic_lookahead else None,
            draft_temperature=self.draft_temperature,
            record=resources.config.record,
        )
        return resources.open_worker(plan, link="inline", needs_outcomes=self.dynamic_lookahead)
