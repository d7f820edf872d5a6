"""EAGLE3: a head of one layer drafts from what the target itself computed (Li et al., arXiv 2503.01840).

The head reads three vectors of the target's residual stream for every committed token, and goes on with its own hidden
states while it drafts; after each verification the target's features take their places. `mode="async"` prepares for the
likeliest outcomes while the target verifies, as `async_tree` does with a draft model (Saguaro, arXiv 2603.03251).
Tokens that the head cannot name have probability 0 in what it draws from, so every path is exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ssd_lab import demo
from ssd_lab.drafting.draft_worker import DraftPlan
from ssd_lab.drafting.eagle3.proposer import open_head
from ssd_lab.drafting.proposer import Proposer
from ssd_lab.drafting.resources import Resources
from ssd_lab.errors import ConfigError
from ssd_lab.learning.lookahead import LookaheadChooser
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.eagle3.config import Eagle3Config
from ssd_lab.models.eagle3.head import Eagle3Head
from ssd_lab.models.eagle3.loader import load_eagle3, read_eagle3_config
from ssd_lab.models.names import EAGLE_HEADS
from ssd_lab.simulate.scenario import Scenario
from ssd_lab.strategies.components.async_drafting import AsyncDrafting
from ssd_lab.strategies.components.tree_drafting import DRAWS_DESCRIPTION, DrawsField, drawn, tree_plan, tree_scenario
from ssd_lab.strategies.components.tree_shapes import TreeTopologyConfig
from ssd_lab.strategies.registry import registry
from ssd_lab.strategies.step_sizes import StepSizes

_OF_ASYNC = ("f", "fan_out", "fallback", "saguaro_c")
_OF_CHAINS = ("k", "draft_temperature", "dynamic_lookahead")


@registry.register
class Eagle3(AsyncDrafting):
    """An EAGLE3 head drafts from the target's own features, before or while the target verifies."""

    strategy_name: ClassVar[str] = "eagle3"
    draft_field: ClassVar[str | None] = "head"

    mode: Literal["sync", "async"] = Field(
        "sync", description="sync drafts while the target waits; async prepares for likely outcomes while it verifies"
    )
    k: int = Field(
        5,
        ge=1,
        le=32,
        description="lookahead: draft tokens verified in one round, or the most of them; a tree has its own depth",
    )
    tree: TreeTopologyConfig | None = Field(
        None, description="sync: a token tree instead of a chain: fixed, optimal or dynamic (EAGLE-2), as in sync_tree"
    )
    draws: DrawsField = Field("auto", description=f"of a tree: {DRAWS_DESCRIPTION}")
    head: str | None = Field(
        None,
        description="folder or hub id of the head; None takes the one that is bundled or published for the target",
    )

    @model_validator(mode="after")
    def _fits(self) -> Eagle3:
        if self.mode == "async" and self.tree is not None:
            raise ValueError(
                "a tree was given, and mode is 'async', which prepares chains: take mode='sync' for a tree, or f or "
                "fan_out for how many outcomes to prepare"
            )
        if self.mode == "sync" and (given := self._changed(_OF_ASYNC)):
            raise ValueError(
                f"{', '.join(given)} belong{'s' * (len(given) == 1)} to mode='async', and mode is 'sync', which "
                f"prepares nothing; allowed here: {', '.join((*_OF_CHAINS, 'tree', 'draws'))}"
            )
        if self.tree is not None and (given := self._changed(_OF_CHAINS)):
            raise ValueError(
                f"{', '.join(given)} say{'s' * (len(given) == 1)} how a chain is drafted, and a tree was given: its "
                "own fields say how deep it is; leave out one or the other"
            )
        if self.tree is None and self._changed(("draws",)):
            raise ValueError("draws says how a tree's children are chosen, and none was given: add tree=...")
        if self.tree is not None:
            drawn(self.tree, self.draws)
        return self

    def _changed(self, names: Iterable[str]) -> list[str]:
        """Those of the fields that are not at their default: a config that was written out names all of them."""
        return [name for name in names if getattr(self, name) != type(self).model_fields[name].default]

    @property
    def overlaps(self) -> bool:  # type: ignore[override]  # a constant of most strategies
        """In async mode, unless head and target take turns."""
        return self.mode == "async"

    def works_beside(self, link: str, device: str) -> bool:
        """On a CPU `auto` takes the engine's own thread."""
        return super().works_beside("inline" if link == "auto" and device == "cpu" else link, device)

    @property
    def lookahead(self) -> int:
        """At most k draft tokens a round, or a tree's longest path."""
        return self.k if self.tree is None else self.tree.depth

    @property
    def reserved_positions(self) -> int:
        """A place for each draft token, those of a tree as in `sync_tree`."""
        return self.k if self.tree is None else tree_plan(self.tree, self.draws, record=False).reserved_positions

    @property
    def step_sizes(self) -> StepSizes:
        """As those of the strategies that draft likewise with a model."""
        if self.tree is not None:
            return StepSizes(self.tree.num_nodes, chain=self.tree.num_nodes)
        return super().step_sizes if self.mode == "async" else StepSizes(self.k, chain=self.k)

    @property
    def scenario(self) -> Scenario:
        """As those of the strategies that draft likewise with a model, at a head's times."""
        if self.tree is not None:
            return tree_scenario(self.strategy_name, self.tree)
        return super().scenario if self.mode == "async" else Scenario("eagle3", self.k, mode="sync")

    def head_config(self, target: str, shape: ModelConfig) -> Eagle3Config:
        """Read from the head's folder."""
        return read_eagle3_config(self.head or _known_head(target), shape)

    def build(self, resources: Resources) -> Proposer:
        """A worker for the head, beside the target."""
        source = self.head or _known_head(str(resources.target.source))
        head = load_eagle3(source, resources.target, bitwise=resources.config.bitwise)
        record = resources.config.record
        if self.tree is not None:
            _check_width(head, self.tree.width)
            return open_head(resources, head, tree_plan(self.tree, self.draws, record=record), link="inline")
        if self.mode == "sync":
            lookahead = LookaheadChooser if self.dynamic_lookahead else None
            plan = DraftPlan(k=self.k, lookahead=lookahead, draft_temperature=self.draft_temperature, record=record)
            return open_head(resources, head, plan, link="inline")
        plan = self.async_plan(resources.config)
        _check_fan_out(head, self.schedule.learner(self.k).widest)
        return open_head(resources, head, plan, link=resources.config.draft_link, sends_texts=plan.needs_texts)


def _known_head(source: str) -> str:
    """The head that comes with the bundled target, or the one published for this target."""
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


def _check_width(head: Eagle3Head, width: int) -> None:
    """Children of a node are tokens that the head can name."""
    nameable = head.vocabulary.size
    if width > nameable:
        raise ConfigError(
            f"a tree with {width} children of a node was asked for, and this head can name {nameable} tokens: lower "
            "the tree's widths, paths or top_k"
        )
