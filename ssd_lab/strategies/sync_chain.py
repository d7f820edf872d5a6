"""Synchronous chain speculation: the draft decodes k tokens, then the target verifies them (arXiv 2211.17192)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ssd_lab.engine.draft_worker import DraftPlan
from ssd_lab.engine.proposer import Proposer
from ssd_lab.engine.resources import Resources
from ssd_lab.strategies.base import StrategyConfig
from ssd_lab.strategies.registry import registry


@registry.register
class SyncChain(StrategyConfig):
    """A draft model guesses k tokens one after another while the target waits."""

    strategy_name: ClassVar[str] = "sync_chain"
    needs_draft: ClassVar[bool] = True

    k: int = Field(
        6, ge=1, le=32, description="lookahead: draft tokens verified in one round; each costs one draft step"
    )

    @property
    def lookahead(self) -> int:
        """k draft tokens a round."""
        return self.k

    def build(self, resources: Resources) -> Proposer:
        """A draft worker in the engine's own thread, with no work of its own between rounds."""
        return resources.open_worker(DraftPlan(k=self.k, record=resources.config.record), link="inline")
