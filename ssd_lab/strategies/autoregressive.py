"""Autoregressive decoding: one token a round, no draft. What every other strategy is compared with."""

from __future__ import annotations

from typing import ClassVar

from ssd_lab.drafting.proposer import NoProposer, Proposer
from ssd_lab.drafting.resources import Resources
from ssd_lab.strategies.base import StrategyConfig
from ssd_lab.strategies.registry import registry


@registry.register
class Autoregressive(StrategyConfig):
    """The target alone, one token a round."""

    strategy_name: ClassVar[str] = "autoregressive"

    @property
    def lookahead(self) -> int:
        """No draft tokens."""
        return 0

    def build(self, resources: Resources) -> Proposer:
        """Propose nothing."""
        return NoProposer(resources.device)
