"""EAGLE3: a head of one layer drafts from what the target itself computed (Li et al., arXiv 2503.01840).

The head reads three vectors of the target's residual stream for every committed token, and goes on with its own hidden
states while it drafts; after each verification the target's features take their places. `mode="async"` prepares for the
likeliest outcomes while the target verifies, as `async_tree` does with a draft model (Saguaro, arXiv 2603.03251).
Tokens that the head cannot name have probability 0 in what it draws from, so every path is exact.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ssd_lab import demo
from ssd_lab.engine.draft_plan import DraftPlan
from ssd_lab.engine.eagle_proposer import open_head
from ssd_lab.engine.proposer import Proposer
from ssd_lab.engine.resources import Resources
from ssd_lab.errors import ConfigError
from ssd_lab.models.eagle3 import Eagle3Head
from ssd_lab.models.eagle3_loader import load_eagle3
from ssd_lab.models.loader import LoadedModel
from ssd_lab.models.names import EAGLE_HEADS
from ssd_lab.strategies.base import StrategyConfig
from ssd_lab.strategies.fallback import Fast, Jit
from ssd_lab.strategies.fanout import FanOut, Schedule, Uniform, check_lengths
from ssd_lab.strategies.registry import registry

_ASYNC_ONLY = ("f", "fan_out", "fallback")


@registry.register
class Eagle3(StrategyConfig):
    """An EAGLE3 head drafts from the target's own features, before or while the target verifies."""

    strategy_name: ClassVar[str] = "eagle3"
    draft_field: ClassVar[str | None] = "head"

    mode: Literal["sync", "async"] = Field(
        "sync", description="sync drafts while the target waits; async prepares for likely outcomes while it verifies"
    )
    k: int = Field(5, ge=1, le=32, description="lookahead: draft tokens verified in one round")
    f: int | None = Field(
        None, ge=1, le=64, description="async: outcomes prepared at each accepted length (3 if no fan_out is given)"
    )
    fan_out: FanOut | None = Field(None, description="async: a fan-out schedule instead of f")
    fallback: Literal["jit", "fast"] = Field(
        "jit",
        description="async: what answers a miss: jit drafts now while the target waits; fast reuses a prepared branch",
    )
    head: str | None = Field(
        None,
        description="folder or hub id of the head; None takes the one that is bundled or published for the target",
    )

    @model_validator(mode="after")
    def _fits(self) -> Eagle3:
        given = [name for name in _ASYNC_ONLY if name in self.model_fields_set]
        if self.mode == "sync" and given:
            raise ValueError(f"{', '.join(given)} belong{'s' * (len(given) == 1)} to mode='async', and mode is 'sync'")
        if self.f is not None and self.fan_out is not None:
            raise ValueError("f and fan_out both say the fan-out: give one of them")
        check_lengths(self.schedule, self.k)
        return self

    @property
    def schedule(self) -> Schedule:
        """The fan-out schedule of async rounds."""
        return self.fan_out if self.fan_out is not None else Uniform(f=3 if self.f is None else self.f)

    @property
    def lookahead(self) -> int:
        """k draft tokens a round."""
        return self.k

    def build(self, resources: Resources) -> Proposer:
        """A worker for the head, beside the target."""
        source = self.head or _known_head(resources.target)
        head = load_eagle3(source, resources.target, bitwise=resources.config.bitwise)
        record = resources.config.record
        if self.mode == "sync":
            return open_head(resources, head, DraftPlan(k=self.k, record=record), link="inline")
        plan = DraftPlan(
            k=self.k,
            fan_out=self.schedule,
            fallback=Fast() if self.fallback == "fast" else Jit(),
            record=record,
        )
        _check_fan_out(head, self.schedule.learner(self.k).widest)
        return open_head(resources, head, plan, link=resources.config.draft_link)


def _known_head(target: LoadedModel) -> str:
    """The head that comes with the bundled target, or the one published for this target."""
    source = str(target.source)
    if source == str(demo.TARGET) and demo.EAGLE3.is_dir():
        return str(demo.EAGLE3)
    if source in EAGLE_HEADS:
        return EAGLE_HEADS[source]
    raise ConfigError(
        f"no EAGLE3 head is known for the target {source}: name one with head=<folder or hub id>, or train one "
        "(ssd-lab train eagle3)"
    )


def _check_fan_out(head: Eagle3Head, widest: int) -> None:
    """Only tokens that the head can name are prepared for, and one of them is the draft token itself."""
    nameable = head.vocabulary.size - 1
    if widest > nameable:
        raise ConfigError(
            f"a fan-out of {widest} was asked for, and this head can name {nameable} recovery tokens: lower f or "
            "fan_out"
        )
