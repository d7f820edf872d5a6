"""Asynchronous tree speculation (Saguaro, arXiv 2603.03251).

While the target verifies k draft tokens, the draft prepares k more for each of the likeliest outcomes (accepted length,
recovery token). If the real outcome is among them (a hit) the next round starts at once; if not, the fallback drafts
for the missed sequences alone. Differs from the reference system: at temperature > 0 every path, hit or miss, is
verified against the distribution its tokens were drawn from, so the text follows the target's distribution.
"""

from __future__ import annotations

from typing import ClassVar

from ssd_lab.drafting.proposer import Proposer
from ssd_lab.drafting.resources import Resources
from ssd_lab.strategies.components.async_drafting import AsyncDrafting
from ssd_lab.strategies.registry import registry


@registry.register
class AsyncTree(AsyncDrafting):
    """The draft prepares for the likeliest outcomes while the target verifies."""

    strategy_name: ClassVar[str] = "async_tree"
    needs_draft: ClassVar[bool] = True
    overlaps: ClassVar[bool] = True

    def build(self, resources: Resources) -> Proposer:
        """A draft worker of its own, on the link that the engine's config names."""
        plan = self.async_plan(resources.config)
        return resources.open_worker(plan, link=resources.config.draft_link, sends_texts=plan.needs_texts)
