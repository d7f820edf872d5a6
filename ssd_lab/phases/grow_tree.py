"""Grow a draft tree of a settled shape, level by level: one forward of the draft for each level but the last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.decoding.sampling import SamplingBatch, target_distribution
from ssd_lab.decoding.topology import Topology
from ssd_lab.decoding.tree_draws import draw_top, draw_without_replacement
from ssd_lab.execution.phase import Phase
from ssd_lab.kernels.places import slots_of
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.phases.reading import Reading
from ssd_lab.rounds.drafted import GrownTree
from ssd_lab.rounds.rows import Bounds, RowTensors
from ssd_lab.rounds.runner import Runner
from ssd_lab.rounds.token_tree import TokenTree


@dataclass(frozen=True)
class Level:
    """One level of a topology, as index tensors. Nodes that have children are *fed* to the draft.

    parents, ranks `[nodes of the level]`: each node's parent among the fed nodes of the level before, and its place
    among its siblings. fed: which nodes of the level are fed. first_fed: how many were fed before. ancestors `[fed,
    level]`: the fed nodes on the path to each, itself last, in the order in which they were fed.
    """

    width: int
    parents: torch.Tensor
    ranks: torch.Tensor
    fed: torch.Tensor
    first_fed: int
    ancestors: torch.Tensor


class Levels:
    """A topology laid out for drafting on a device: made once, used in every round."""

    def __init__(self, topology: Topology, device: torch.device) -> None:
        self.topology = topology
        inner = sorted(set(topology.parents) - {-1})
        fed = {node: place for place, node in enumerate(inner)}
        paths: dict[int, list[int]] = {-1: []}
        self.levels: list[Level] = []
        before = [-1]
        for nodes in topology.levels:
            own = [node for node in nodes if node in fed]
            for node in own:
                paths[node] = [*paths[topology.parents[node]], fed[node]]

            def index(values: list[Any]) -> torch.Tensor:
                return torch.tensor(values, dtype=torch.int64, device=device)

            ranks = [topology.ranks[node] for node in nodes]
            self.levels.append(
                Level(
                    width=max(ranks) + 1,
                    parents=index([before.index(topology.parents[node]) for node in nodes]),
                    ranks=index(ranks),
                    fed=index([node - nodes.start for node in own]),
                    first_fed=fed[own[0]] if own else len(inner),
                    ancestors=index([paths[node] for node in own]),
                )
            )
            before = own
        self.num_fed = len(inner)
        self.parents = index(list(topology.parents))
        self.drawn_from = index([fed.get(parent, -1) + 1 for parent in topology.parents])
        self.written = index([topology.depth + fed[i] if i in fed else -1 for i in range(topology.num_nodes)])


@dataclass(frozen=True)
class Children:
    """tokens, valid `[batch, parents, width]`, in the order in which they are tried; probs `[batch, parents, vocab]`,
    what they were drawn from (None: certain guesses); token_probs like tokens.
    """

    tokens: torch.Tensor
    valid: torch.Tensor
    probs: torch.Tensor | None
    token_probs: torch.Tensor | None


def choose_children(
    logits: torch.Tensor, sampling: SamplingBatch, uniforms: torch.Tensor | None, width: int, *, record: bool
) -> Children:
    """`width` children after each of the draft's `logits` `[batch, parents, vocab]`: drawn with `uniforms` `[batch, 1,
    width]`, the likeliest without them and in rows at temperature 0.
    """
    tokens = draw_top(logits, width)
    valid = torch.ones_like(tokens, dtype=torch.bool)
    probs = None
    if uniforms is not None:
        probs = target_distribution(logits, sampling)
        drawn, possible = draw_without_replacement(probs, uniforms.expand(*logits.shape[:2], -1))
        greedy = (sampling.temperature == 0)[:, None, None]
        tokens, valid = torch.where(greedy, tokens, drawn), possible | greedy
    token_probs = None
    if record:
        known = torch.softmax(logits, -1) if probs is None else probs
        token_probs = known.gather(-1, tokens)
    return Children(tokens, valid, probs, token_probs)


@dataclass(frozen=True)
class GrowTreePhase(Phase[Runner, Reading, GrownTree]):
    """A tree of this shape after the committed tokens of each row.

    drawn: at temperature > 0 children are drawn without replacement, else (and at temperature 0) they are the likeliest
    tokens. K/V of fed nodes goes behind the sequence's committed tokens, `depth` places further so that an accepted
    path can be moved there. context: a bound on the cache positions in use. record: keep the draft's probabilities.
    """

    name: ClassVar[str] = "grow_tree"

    topology: Topology
    context: int
    drawn: bool
    record: bool

    def run(self, runner: Runner, reading: Reading) -> GrownTree:
        """One forward for each level but the last."""
        rows, shape = reading.rows, _levels(runner, self.topology)
        drawn = self.drawn and not rows.sampling.all_greedy
        outlook, states, _ = reading.begin(runner, self.context)
        tokens, valid, probs, token_probs = [], [], [], []
        alive = torch.ones_like(rows.lengths, dtype=torch.bool)[:, None]  # of the fed nodes of the level before
        for depth, level in enumerate(shape.levels, start=1):
            numbers = _numbers(rows, depth, level.width) if drawn else None
            logits = runner.logits_of(outlook)
            made = choose_children(logits, rows.sampling, numbers, level.width, record=self.record)
            own = made.tokens[:, level.parents, level.ranks]
            own_valid = made.valid[:, level.parents, level.ranks] & alive[:, level.parents]
            tokens.append(own)
            valid.append(own_valid)
            if made.probs is not None:
                probs.append(made.probs)
            if made.token_probs is not None:
                token_probs.append(made.token_probs[:, level.parents, level.ranks])
            if len(level.fed):
                above = None if states is None else states[:, level.parents[level.fed]]
                step = self._step(runner, reading, shape, own[:, level.fed], depth, level)
                outlook, states = reading.follow(runner, step, above)
                alive = own_valid[:, level.fed]
        return GrownTree(
            torch.cat(tokens, 1),
            self._tree(rows, shape, torch.cat(valid, 1), drawn=drawn),
            torch.cat(probs, 1) if probs else None,
            torch.cat(token_probs, 1) if token_probs else None,
            shape.written.expand(len(rows), -1),
        )

    def _tree(self, rows: RowTensors, shape: Levels, valid: torch.Tensor, *, drawn: bool) -> TokenTree:
        """How the nodes hang together: the same in every row."""
        greedy = rows.sampling.temperature == 0
        parents, drawn_from = (tensor.expand(len(rows), -1) for tensor in (shape.parents, shape.drawn_from))
        certain = greedy if drawn else torch.ones_like(greedy)
        return TokenTree(parents, valid, drawn_from, certain, self.topology.depth, self.topology.width)

    def _step(
        self, runner: Runner, reading: Reading, shape: Levels, tokens: torch.Tensor, depth: int, level: Level
    ) -> StepInput:
        tables, start = reading.rows.tables, reading.starts[:, None]
        behind = start + self.topology.depth  # where K/V of fed nodes begins
        places = behind + level.first_fed + torch.arange(tokens.shape[1], device=tokens.device)
        return StepInput(
            token_ids=tokens,
            positions=(start + depth - 1).expand_as(tokens).contiguous(),
            write_slots=slots_of(places, tables, runner.block_size),
            block_tables=tables,
            prefix_lengths=start.expand_as(tokens).contiguous(),
            context_length=self.context,
            ancestors=behind.unsqueeze(-1) + level.ancestors,
        )


def _levels(runner: Runner, topology: Topology) -> Levels:
    """The topology on the runner's device."""
    levels: Levels = runner.constant(topology.parents, lambda: Levels(topology, runner.device))
    return levels


def _numbers(rows: RowTensors, depth: int, width: int) -> torch.Tensor:
    """One uniform number for each sibling `[batch, 1, width]`, by the place where it will stand; nodes of one depth
    share them, since only the children of one of them are examined.
    """
    siblings = torch.arange(width, device=rows.lengths.device)
    places = (rows.lengths + depth - 1)[:, None, None]
    return uniform(rows.sampling.seeds[:, None, None], places, Purpose.DRAFT, siblings)


def grow_tree(
    runner: Runner, reading: Reading, bounds: Bounds, topology: Topology, *, drawn: bool, record: bool
) -> GrownTree:
    """Run a `GrowTreePhase` over these rows; arguments as there."""
    levels = _levels(runner, topology)
    context = runner.bound(bounds.length + topology.depth + levels.num_fed)
    return runner.run(GrowTreePhase(topology, context, drawn, record), reading)
