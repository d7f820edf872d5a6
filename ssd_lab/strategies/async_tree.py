"""Asynchronous tree speculation (Saguaro, arXiv 2603.03251).

While the target verifies k draft tokens, the draft prepares k more for each of the likeliest outcomes (accepted length,
recovery token). If the real outcome is among them (a hit) the next round starts at once; if not, the fallback drafts
for the missed sequences alone. Differs from the reference system: at temperature > 0 every path, hit or miss, is
verified against the distribution its tokens were drawn from, so the text follows the target's distribution.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from ssd_lab.engine.draft_plan import DraftPlan
from ssd_lab.engine.proposer import Proposer
from ssd_lab.engine.resources import Resources
from ssd_lab.engine.step_sizes import StepSizes
from ssd_lab.strategies.base import StrategyConfig
from ssd_lab.strategies.fallback import Fallback, Jit
from ssd_lab.strategies.fanout import Explicit, FanOut, Schedule, Uniform, check_lengths
from ssd_lab.strategies.lookahead import DynamicLookahead
from ssd_lab.strategies.registry import registry


@registry.register
class AsyncTree(StrategyConfig):
    """The draft prepares for the likeliest outcomes while the target verifies."""

    strategy_name: ClassVar[str] = "async_tree"
    needs_draft: ClassVar[bool] = True
    overlaps: ClassVar[bool] = True

    k: int = Field(
        6,
        ge=1,
        le=32,
        description="lookahead: draft tokens verified in one round, or the most of them; branches are as deep",
    )
    f: int | None = Field(
        None, ge=1, le=64, description="fan-out: outcomes prepared at each accepted length (3 if no fan_out is given)"
    )
    fan_out: FanOut | None = Field(
        None, description='a fan-out schedule instead of f, such as {"kind": "adaptive", "budget": 21}'
    )
    fallback: Fallback = Field(
        Jit(),
        description="what answers a miss: jit drafts now while the target waits; fast guesses (stale: a branch "
        "prepared for another recovery token; ngram; random); auto picks by what rounds gave and cost",
    )
    saguaro_c: float = Field(
        1.0,
        ge=0,
        le=1,
        description="C of Saguaro sampling: below 1 the draft draws less often from what is cached, for more hits and "
        "fewer accepted tokens; no effect at temperature 0",
    )
    draft_temperature: float | None = Field(
        None, ge=0, description="temperature of the draft where requests sample (default: the request's own)"
    )
    dynamic_lookahead: bool = Field(
        False, description="choose each round's draft tokens, at most k, by confidence and measured times"
    )

    @model_validator(mode="after")
    def _one_schedule(self) -> AsyncTree:
        if self.f is not None and self.fan_out is not None:
            raise ValueError("f and fan_out both say the fan-out: give one of them")
        if isinstance(self.fan_out, Explicit) and self.dynamic_lookahead:
            raise ValueError("explicit fan-out lists fit one k: with a dynamic lookahead take another kind of fan_out")
        check_lengths(self.schedule, self.k)
        return self

    @property
    def schedule(self) -> Schedule:
        """The fan-out schedule in use."""
        return self.fan_out if self.fan_out is not None else Uniform(f=3 if self.f is None else self.f)

    @property
    def lookahead(self) -> int:
        """At most k draft tokens a round."""
        return self.k

    @property
    def step_sizes(self) -> StepSizes:
        """The chain of a fallback, and the branches of the wider of the two schedules."""
        branches = max(sum(self.schedule.after_hit(self.k)), sum(self.schedule.after_miss(self.k)))
        return StepSizes(self.k, chain=self.k, branches=branches, depth=self.k)

    def build(self, resources: Resources) -> Proposer:
        """A draft worker of its own, on the link that the engine's config names."""
        plan = DraftPlan(
            k=self.k,
            fan_out=self.schedule,
            fallback=self.fallback,
            lookahead=DynamicLookahead() if self.dynamic_lookahead else None,
            saguaro_c=self.saguaro_c,
            draft_temperature=self.draft_temperature,
            record=resources.config.record,
            details=resources.config.record and resources.config.record_details > 0,
        )
        return resources.open_worker(plan, link=resources.config.draft_link, sends_texts=plan.needs_texts)
