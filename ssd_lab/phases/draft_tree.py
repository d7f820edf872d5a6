"""Draft tree: while the target verifies k tokens, prepare more for the likeliest outcomes (arXiv 2603.03251).

And `LookupPhase`: which of the branches, if any, was prepared for the outcome that came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from ssd_lab.decoding.branches import Found, best_counts, draft_confidence, find_branch, outcome_chances
from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.execution.phase import Phase
from ssd_lab.execution.structure import each_tensor
from ssd_lab.phases.reading import Reading, States
from ssd_lab.rounds.branches import BranchRun
from ssd_lab.rounds.drafted import DraftConfidence, Drafted, DraftTree
from ssd_lab.rounds.drawing import PLAIN, Drawing
from ssd_lab.rounds.rows import Bounds
from ssd_lab.rounds.runner import Runner

RECORDED_CANDIDATES = 64  # a trace tells the rank of every recovery token among so many


@dataclass(frozen=True)
class BranchShape:
    """What a tree is like whatever the round: its graph is captured once.

    branches: in all. depth: draft tokens of each. widest: a bound on the fan-out at one accepted length. by_confidence:
    the phase itself chooses the fan-out of each row.
    """

    branches: int
    depth: int
    widest: int
    by_confidence: bool = False


@dataclass(frozen=True)
class TreeInputs:
    """draft_tokens `[batch, k]`: what the target verifies. fan_out: counts `[batch, k + 1]` that sum to the shape's
    branches, or for a tree by confidence the tables `[batch, TABLE]` of `decoding.branches`. next_fan_out `[batch,
    depth]`: candidates that will be cached at each place of the branches, where the drawing asks for them.
    """

    reading: Reading
    draft_tokens: torch.Tensor
    fan_out: torch.Tensor
    next_fan_out: torch.Tensor | None = None


@dataclass(frozen=True)
class TreePhase(Phase[Runner, TreeInputs, DraftTree]):
    """Extend the draft's cache over the k tokens under verification, fork, and decode all branches in parallel.

    A branch at accepted length a sees the committed tokens, the first a draft tokens and itself. Recovery tokens are
    tokens that the draft can name. extended, farthest: bounds on the cache positions in use by the extension and by the
    branches.
    """

    name: ClassVar[str] = "draft_tree"

    shape: BranchShape
    extended: int
    farthest: int
    drawing: Drawing

    def run(self, runner: Runner, inputs: TreeInputs) -> DraftTree:
        """All forwards."""
        reading, draft_tokens = inputs.reading, inputs.draft_tokens
        outlooks, states = reading.extend(runner, draft_tokens, self.extended)
        logits = runner.logits_of(outlooks)
        kept = max(self.shape.widest, RECORDED_CANDIDATES if self.drawing.record else 0)
        kernels, count = runner.kernels, min(kept, runner.num_choices - 1)
        candidates = kernels.recovery_candidates(logits, draft_tokens, count)
        counts, confidence = self._counts(logits, candidates, inputs)
        choices = choice_probs = None
        if self.drawing.record:
            picked = kernels.greedy_pick(logits.flatten(0, 1), want_probs=True)
            choices, choice_probs = each_tensor(lambda one: one.view(counts.shape), picked)
        fork = kernels.fork(candidates, counts, self.shape.branches, logits, choices, choice_probs)
        every = torch.arange(len(candidates), device=candidates.device)[:, None]
        forked = None if states is None else states[every, fork.prefixes]
        drafted = self._branches(runner, inputs, fork.recovery, fork.prefixes, forked)
        return DraftTree(counts, fork.recovery, fork.keys, candidates, drafted, fork.recovery_probs, confidence)

    def _counts(
        self, logits: torch.Tensor, candidates: torch.Tensor, inputs: TreeInputs
    ) -> tuple[torch.Tensor, DraftConfidence | None]:
        """Branches at each accepted length: those given, or those of the likeliest outcomes."""
        if not self.shape.by_confidence:
            return inputs.fan_out, None
        temperature = inputs.reading.rows.sampling.temperature
        confidences, candidate_probs = draft_confidence(logits, inputs.draft_tokens, candidates, temperature)
        chances = outcome_chances(confidences, candidate_probs[..., : self.shape.widest], inputs.fan_out)
        counts, hit_chance = best_counts(chances, self.shape.branches)
        return counts, DraftConfidence(confidences, candidate_probs, hit_chance)

    def _branches(
        self, runner: Runner, inputs: TreeInputs, recovery: torch.Tensor, prefixes: torch.Tensor, states: States
    ) -> Drafted:
        """Every branch's draft tokens `[batch, branches, depth]`, one forward a step."""
        reading, rows = inputs.reading, inputs.reading.rows
        depth, branches = self.shape.depth, self.shape.branches
        uniforms = None
        if not rows.sampling.all_greedy:  # by the place where each draft token will stand, behind the recovery token
            first = (rows.lengths[:, None] + prefixes).unsqueeze(-1) + 1
            places = first + torch.arange(depth, device=recovery.device)
            uniforms = uniform(rows.sampling.seeds[:, None, None], places, Purpose.DRAFT)
        begins = reading.starts[:, None] + prefixes
        run = BranchRun.starting(runner.kernels, rows, begins, depth, runner.block_size, farthest=self.farthest)
        tokens, cached = recovery, inputs.next_fan_out
        steps: list[Drafted] = []
        for step in range(depth):
            outlook, states = reading.follow(runner, run.step(tokens, step), states)
            chosen = runner.choose(
                outlook,
                rows.sampling,
                None if uniforms is None else uniforms[:, :, step],
                drawing=self.drawing,
                fan_out=None if cached is None else cached[:, step : step + 1].expand(-1, branches),
            )
            steps.append(chosen)
            tokens = chosen.tokens
        return Drafted.joined(steps)


def ready_tree(
    runner: Runner,
    reading: Reading,
    bounds: Bounds,
    draft_tokens: torch.Tensor,
    fan_out: torch.Tensor,
    shape: BranchShape,
    *,
    drawing: Drawing = PLAIN,
    next_fan_out: torch.Tensor | None = None,
) -> Callable[[], DraftTree]:
    """A `TreePhase` over these rows, to be started before any other one, or never; arguments as there and in
    `TreeInputs`.
    """
    extended = runner.bound(bounds.length + reading.reach(draft_tokens.shape[1] + 1))
    farthest = runner.bound(bounds.table * runner.block_size + shape.depth * shape.branches)
    modified = next_fan_out if drawing.modifies and not reading.rows.sampling.all_greedy else None
    phase = TreePhase(shape, extended, farthest, drawing)
    return runner.ready(phase, TreeInputs(reading, draft_tokens, fan_out, modified))


@dataclass(frozen=True)
class LookupInputs:
    """As in `find_branch`."""

    prepared: torch.Tensor
    outcomes: torch.Tensor
    counts: torch.Tensor | None = None


@dataclass(frozen=True)
class LookupPhase(Phase[Runner | None, LookupInputs, Found]):
    """Needs no model, so it runs wherever the outcome lies: on the host as it is (runner: None), else by the runner of
    that device, where one kernel is no graph.
    """

    name: ClassVar[str] = "lookup"
    captured: ClassVar[bool] = False

    def run(self, runner: Runner | None, inputs: LookupInputs) -> Found:
        """The branches for these outcomes."""
        find = find_branch if runner is None else runner.kernels.find_branch
        return find(inputs.prepared, inputs.outcomes, inputs.counts)
