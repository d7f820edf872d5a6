"""Grow a draft tree whose shape follows the draft's confidence (EAGLE-2, arXiv 2406.16858)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ssd_lab.decoding.dynamic_tree import Growth, begin, grow, pool_size, rerank
from ssd_lab.execution.phase import Phase
from ssd_lab.kernels.places import slots_of
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.phases.reading import Reading, States
from ssd_lab.rounds.drafted import GrownTree
from ssd_lab.rounds.rows import Bounds
from ssd_lab.rounds.runner import Runner
from ssd_lab.rounds.token_tree import TokenTree


@dataclass(frozen=True)
class DynamicShape:
    """top_k: nodes expanded at each level, and children of each; depth: levels; num_nodes: how many are kept."""

    top_k: int
    depth: int
    num_nodes: int

    @property
    def num_fed(self) -> int:
        """Nodes that are fed to the draft."""
        return self.top_k * (self.depth - 1)


@dataclass(frozen=True)
class GrowDynamicTreePhase(Phase[Runner, Reading, GrownTree]):
    """A tree of certain guesses after the committed tokens of each row; K/V goes where `GrowTreePhase` puts it."""

    name: ClassVar[str] = "grow_dynamic_tree"

    shape: DynamicShape
    context: int
    record: bool

    def run(self, runner: Runner, reading: Reading) -> GrownTree:
        """One forward for each level but the last."""
        shape = self.shape
        outlook, states, _ = reading.begin(runner, self.context)
        growth = begin(torch.log_softmax(runner.logits_of(outlook)[:, 0], -1), shape.top_k)
        batch, device = len(reading.rows), outlook.device
        written = torch.full((batch, pool_size(shape.top_k, shape.depth)), -1, dtype=torch.int64, device=device)
        own = torch.arange(shape.top_k, device=device).expand(batch, -1)
        for level in range(1, shape.depth):
            offset = shape.depth + (level - 1) * shape.top_k
            written.scatter_(1, growth.frontier, own + offset)
            step = self._step(runner, reading, growth, level)
            outlook, states = reading.follow(runner, step, _of_parents(states, growth))
            growth = grow(growth, torch.log_softmax(runner.logits_of(outlook), -1))
        kept = rerank(growth, shape.num_nodes)
        above = kept.scores.gather(1, kept.parents.clamp(min=0))
        own_scores = kept.scores - torch.where(kept.parents >= 0, above, 0.0)
        every = torch.ones_like(kept.tokens, dtype=torch.bool)
        tree = TokenTree(kept.parents, every, torch.zeros_like(kept.tokens), every[:, 0], shape.depth, shape.top_k)
        probs = own_scores.exp() if self.record else None
        return GrownTree(kept.tokens, tree, None, probs, written.gather(1, kept.pool_index))

    def _step(self, runner: Runner, reading: Reading, growth: Growth, level: int) -> StepInput:
        tables, start, top_k = reading.rows.tables, reading.starts[:, None], self.shape.top_k
        tokens = growth.frontier_tokens
        levels = torch.arange(level, device=tokens.device)
        behind = (start + self.shape.depth).unsqueeze(-1)  # where K/V of fed nodes begins, level after level
        ancestors = behind + levels * top_k + growth.ancestors
        return StepInput(
            token_ids=tokens,
            positions=(start + level - 1).expand_as(tokens).contiguous(),
            write_slots=slots_of(ancestors[..., -1], tables, runner.block_size),
            block_tables=tables,
            prefix_lengths=start.expand_as(tokens).contiguous(),
            context_length=self.context,
            ancestors=ancestors,
        )


def grow_dynamic_tree(
    runner: Runner, reading: Reading, bounds: Bounds, shape: DynamicShape, *, record: bool
) -> GrownTree:
    """Run a `GrowDynamicTreePhase` over these rows."""
    context = runner.bound(bounds.length + shape.depth + shape.num_fed)
    return runner.run(GrowDynamicTreePhase(shape, context, record), reading)


def _of_parents(states: States, growth: Growth) -> States:
    """Of the states that the level before left, those of each frontier node's parent."""
    if states is None:
        return None
    if growth.ancestors.shape[-1] == 1:  # the parent is the last committed token
        return states.expand(-1, growth.frontier.shape[1], -1)
    places = growth.ancestors[..., -2].unsqueeze(-1)  # of the parent in the frontier before
    return states.gather(1, places.expand(-1, -1, states.shape[-1]))
