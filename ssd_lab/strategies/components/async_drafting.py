"""The fields of asynchronous drafting, whatever drafts: what is prepared, and what answers a miss."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ssd_lab.config import EngineConfig
from ssd_lab.drafting.draft_worker import DraftPlan
from ssd_lab.learning.lookahead import LookaheadChooser
from ssd_lab.simulate.scenario import Scenario
from ssd_lab.strategies.base import StrategyConfig
from ssd_lab.strategies.components.fallback import Fallback, Jit
from ssd_lab.strategies.components.fan_out import Explicit, FanOut, Schedule, Uniform, check_lengths
from ssd_lab.strategies.step_sizes import StepSizes


class AsyncDrafting(StrategyConfig):
    """A strategy whose draft prepares for the likeliest outcomes while the target verifies."""

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
    def _one_schedule(self) -> Self:
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
        return StepSizes(self.k, chain=self.k, branches=self.schedule.num_branches(self.k), depth=self.k)

    @property
    def scenario(self) -> Scenario:
        """Rounds of the draft's trees, beside the target's verifications."""
        return Scenario(self.strategy_name, self.k, self.schedule, self.fallback.kind, drafting="async")

    def async_plan(self, config: EngineConfig) -> DraftPlan:
        """What a worker of these fields does each round."""
        return DraftPlan(
            k=self.k,
            fan_out=self.schedule,
            fallback=self.fallback,
            lookahead=LookaheadChooser if self.dynamic_lookahead else None,
            saguaro_c=self.saguaro_c,
            draft_temperature=self.draft_temperature,
            record=config.record,
            details=config.record and config.record_details > 0,
        )
