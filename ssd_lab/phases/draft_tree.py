"""Draft tree: while the target verifies k tokens, prepare more for the likeliest outcomes (arXiv 2603.03251)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.decoding.branches import best_counts, branch_layout, outcome_chances, own_opinion
from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.decoding.tree import recovery_candidates
from ssd_lab.execution.executor import Tensors
from ssd_lab.phases.branches import BranchRun
from ssd_lab.phases.draft_chain import choose
from ssd_lab.phases.drawing import PLAIN, Drawing
from ssd_lab.rounds.drafted import Drafted, DraftTree, Opinion
from ssd_lab.rounds.rows import RowTensors, causal_step
from ssd_lab.rounds.runner import StepRunner

RECORDED_CANDIDATES = 64  # a trace tells the rank of every recovery token among so many


@dataclass(frozen=True)
class TreeShape:
    """What a tree is like whatever the round: its graph is captured once.

    branches: in all. depth: draft tokens of each. widest: a bound on the fan-out at one accepted length. by_confidence:
    the phase itself chooses the fan-out of each row.
    """

    branches: int
    depth: int
    widest: int
    by_confidence: bool = False


def draft_tree(
    runner: StepRunner,
    rows: RowTensors,
    draft_tokens: torch.Tensor,
    fan_out: torch.Tensor,
    shape: TreeShape,
    *,
    record: bool,
    drawing: Drawing = PLAIN,
    next_fan_out: torch.Tensor | None = None,
) -> DraftTree:
    """Extend the draft's cache over the k tokens under verification, fork, and decode all branches in parallel.

    Args: draft_tokens `[batch, k]`, what the target verifies; fan_out, counts `[batch, k + 1]` that sum to the shape's
    branches, or for a tree by confidence the tables `[batch, TABLE]` of `decoding.branches`; next_fan_out `[batch,
    depth]`, candidates that will be cached at each place of the branches, where `drawing` asks for them.

    A branch at accepted length a sees the committed tokens, the first a draft tokens and itself.
    """
    sampled = not rows.sampling.all_greedy
    bound = runner.executor.context_bound
    extended = bound(rows.longest + draft_tokens.shape[1])
    farthest = bound(rows.longest_table * runner.block_size + shape.depth * shape.branches)
    modified = (next_fan_out,) if sampled and drawing.modifies and next_fan_out is not None else ()
    given = (draft_tokens, fan_out, *modified)

    def phase(*tensors: torch.Tensor) -> Tensors:
        tokens, counts, *rest = tensors[: len(given)]
        own = rows.with_tensors(tensors[len(given) :])
        tree = _Tree(runner, own, tokens, shape, sampled, record, drawing, rest[0] if rest else None)
        return tree.grow(counts, extended, farthest).tensors()

    static = (shape, extended, farthest, sampled, sampled and rows.sampling.any_filter, record, drawing)
    outputs = runner.call("draft_tree", static, phase, *given, *rows.tensors())
    return DraftTree.of_tensors(
        outputs, sampled=sampled, record=record, opinion=shape.by_confidence, raw=drawing.keeps_raw
    )


@dataclass(frozen=True)
class Fork:
    """Where the branches leave the tokens under verification: counts `[batch, k + 1]`, and of each branch the accepted
    length and the rank of its recovery token `[batch, branches]`.
    """

    counts: torch.Tensor
    prefixes: torch.Tensor
    ranks: torch.Tensor
    opinion: Opinion | None

    @classmethod
    def chosen(
        cls,
        logits: torch.Tensor,
        draft_tokens: torch.Tensor,
        candidates: torch.Tensor,
        fan_out: torch.Tensor,
        shape: TreeShape,
        temperature: torch.Tensor,
    ) -> Fork:
        """As `fan_out` says, which are the counts, or the tables to choose them by; logits `[batch, k + 1, vocab]`."""
        opinion, counts = None, fan_out
        if shape.by_confidence:
            counts, opinion = _by_confidence(logits, draft_tokens, candidates, fan_out, shape, temperature)
        return cls(counts, *branch_layout(counts, shape.branches), opinion)

    def recovery(
        self, logits: torch.Tensor, candidates: torch.Tensor, *, record: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Recovery tokens `[batch, branches]`, and the draft's probabilities of them if recorded."""
        every = torch.arange(len(candidates), device=candidates.device)[:, None]
        tokens = candidates[every, self.prefixes, self.ranks]
        if not record:
            return tokens, None
        normaliser = logits.logsumexp(-1).gather(1, self.prefixes)
        return tokens, (logits[every, self.prefixes, tokens] - normaliser).exp()


def _by_confidence(
    logits: torch.Tensor,
    draft_tokens: torch.Tensor,
    candidates: torch.Tensor,
    tables: torch.Tensor,
    shape: TreeShape,
    temperature: torch.Tensor,
) -> tuple[torch.Tensor, Opinion]:
    """Counts of the likeliest outcomes."""
    confidences, candidate_probs = own_opinion(logits, draft_tokens, candidates, temperature)
    chances = outcome_chances(confidences, candidate_probs[..., : shape.widest], tables)
    counts, hit_chance = best_counts(chances, shape.branches)
    return counts, Opinion(confidences, candidate_probs, hit_chance)


@dataclass(frozen=True)
class _Tree:
    runner: StepRunner
    rows: RowTensors
    draft_tokens: torch.Tensor
    shape: TreeShape
    sampled: bool
    record: bool
    drawing: Drawing
    next_fan_out: torch.Tensor | None

    def grow(self, fan_out: torch.Tensor, extended: int, farthest: int) -> DraftTree:
        """All forwards of the phase. extended, farthest: bounds on the context of the extension and of the branches."""
        rows, runner, k = self.rows, self.runner, self.draft_tokens.shape[1]
        extension = torch.cat([rows.last_tokens[:, None], self.draft_tokens], 1)
        step = causal_step(extension, rows.lengths - 1, rows.tables, runner.block_size, longest=extended - k - 1)
        logits = runner.logits(step)
        kept = min(max(self.shape.widest, RECORDED_CANDIDATES if self.record else 0), logits.shape[-1] - 1)
        candidates = recovery_candidates(logits, self.draft_tokens, kept)
        fork = Fork.chosen(logits, self.draft_tokens, candidates, fan_out, self.shape, rows.sampling.temperature)
        recovery, recovery_probs = fork.recovery(logits, candidates, record=self.record)
        drafted = Drafted.joined(self._branches(recovery, fork.prefixes, farthest))
        return DraftTree(fork.counts, recovery, candidates, drafted, recovery_probs, fork.opinion)

    def _branches(self, recovery: torch.Tensor, prefixes: torch.Tensor, farthest: int) -> list[Drafted]:
        rows, device = self.rows, recovery.device
        depth, branches = self.shape.depth, self.shape.branches
        first_position = rows.lengths[:, None] + prefixes  # where the recovery token stands
        uniforms = None
        if self.sampled:  # by the place where each draft token will stand
            places = first_position.unsqueeze(-1) + 1 + torch.arange(depth, device=device)
            uniforms = uniform(rows.sampling.seeds[:, None, None], places, Purpose.DRAFT)
        run = BranchRun.starting(rows, first_position, depth, self.runner.block_size, farthest=farthest)
        tokens = recovery
        steps: list[Drafted] = []
        for step in range(depth):
            cached = None if self.next_fan_out is None else self.next_fan_out[:, step : step + 1].expand(-1, branches)
            chosen = choose(
                *(self.runner.decoder.kernels, self.runner.logits(run.step(tokens, step)), rows.sampling),
                None if uniforms is None else uniforms[:, :, step],
                record=self.record,
                drawing=self.drawing,
                fan_out=cached,
            )
            steps.append(chosen)
            tokens = chosen.tokens
        return steps
