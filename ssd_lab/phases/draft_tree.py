"""Draft tree: while the target verifies k tokens, prepare more for the likeliest outcomes (arXiv 2603.03251).

And `LookupPhase`: which of the branches, if any, was prepared for the outcome that came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from ssd_lab.decoding.branches import best_counts, branch_layout, draft_confidence, outcome_chances
from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.decoding.tree import recovery_candidates
from ssd_lab.execution.phase import Phase
from ssd_lab.phases.reading import Reading, States
from ssd_lab.rounds.branches import BranchRun
from ssd_lab.rounds.drafted import DraftConfidence, Drafted, DraftTree
from ssd_lab.rounds.drawing import PLAIN, Drawing
from ssd_lab.rounds.rows import Bounds
from ssd_lab.rounds.runner import Runner

_LENGTH = 2**32  # an outcome as one number: accepted length times this, plus the recovery token
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
        candidates = recovery_candidates(logits, draft_tokens, min(kept, runner.num_choices - 1))
        counts, confidence = self._counts(logits, candidates, inputs)
        prefixes, ranks = branch_layout(counts, self.shape.branches)
        every = torch.arange(len(candidates), device=candidates.device)[:, None]
        recovery = candidates[every, prefixes, ranks]
        recovery_probs = None
        if self.drawing.record:
            normaliser = logits.logsumexp(-1).gather(1, prefixes)
            recovery_probs = (logits[every, prefixes, recovery] - normaliser).exp()
        forked = None if states is None else states[every, prefixes]
        drafted = self._branches(runner, inputs, recovery, prefixes, forked)
        keys = branch_keys(counts, recovery)  # now, while the target verifies: so that the lookup is short
        return DraftTree(counts, recovery, keys, candidates, drafted, recovery_probs, confidence)

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
        run = BranchRun.starting(rows, begins, depth, runner.block_size, farthest=self.farthest)
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


def outcome_keys(num_accepted: torch.Tensor, recovery_tokens: torch.Tensor) -> torch.Tensor:
    """Outcomes as single numbers."""
    return num_accepted * _LENGTH + recovery_tokens


def branch_keys(counts: torch.Tensor, recovery_tokens: torch.Tensor) -> torch.Tensor:
    """The outcome that each branch assumes, `[batch, branches]`, from these fields of a `DraftTree`."""
    branches = torch.arange(recovery_tokens.shape[1], device=counts.device)
    accepted = (counts.cumsum(1)[:, None] <= branches[:, None]).sum(-1)  # branches are ordered by accepted length
    return outcome_keys(accepted, recovery_tokens)


@dataclass(frozen=True)
class LookupInputs:
    """prepared `[batch, branches]`: each row's `branch_keys`. outcomes `[batch, 2]`: the accepted length and the
    recovery token that came. counts `[batch, k + 1]`: branches at each accepted length, if the first one there answers
    where none assumes the outcome.
    """

    prepared: torch.Tensor
    outcomes: torch.Tensor
    counts: torch.Tensor | None = None


@dataclass(frozen=True)
class Found:
    """hit `[batch]`: was the outcome prepared? answered `[batch]`: does any branch answer it? branch `[batch]`: which
    one, if so.
    """

    hit: torch.Tensor
    answered: torch.Tensor
    branch: torch.Tensor


@dataclass(frozen=True)
class LookupPhase(Phase[object, LookupInputs, Found]):
    """Needs no model, so it runs wherever the outcome lies: on the host as it is (runner: None), else by the runner of
    that device.
    """

    name: ClassVar[str] = "lookup"

    def run(self, runner: object, inputs: LookupInputs) -> Found:
        """The branches for these outcomes."""
        hit, branch = (inputs.prepared == outcome_keys(*inputs.outcomes.unbind(1))[:, None]).max(1)
        if inputs.counts is None:
            return Found(hit, hit, branch)
        accepted = inputs.outcomes[:, :1]
        at = inputs.counts.gather(1, accepted).squeeze(1)
        first = inputs.counts.cumsum(1).gather(1, accepted).squeeze(1) - at
        return Found(hit, hit | (at > 0), torch.where(hit, branch, first))
