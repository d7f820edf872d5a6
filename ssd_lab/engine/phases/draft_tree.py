"""Draft tree: while the target verifies k tokens, prepare more for the likeliest outcomes (arXiv 2603.03251)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ssd_lab.decoding.branches import best_counts, branch_layout, outcome_chances
from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.decoding.tree import recovery_candidates
from ssd_lab.engine.execution import Tensors
from ssd_lab.engine.phases.draft_chain import Drafted, choose
from ssd_lab.engine.phases.drawing import PLAIN, Drawing
from ssd_lab.engine.rows import RowTensors, causal_step, slots_of
from ssd_lab.engine.runner import StepRunner
from ssd_lab.kernels.step_input import StepInput

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


@dataclass(frozen=True)
class Opinion:
    """What the draft thought of its own round: its probability of each draft token `[batch, k]` and of each candidate
    `[batch, k + 1, n]` (given that the draft token is refused), and the chance `[batch]` that the outcome is prepared.
    """

    confidences: torch.Tensor
    candidate_probs: torch.Tensor
    hit_chance: torch.Tensor

    def tensors(self) -> Tensors:
        """All of them."""
        return self.confidences, self.candidate_probs, self.hit_chance


@dataclass(frozen=True)
class DraftTree:
    """Branches prepared for the rows of a round.

    counts `[batch, k + 1]`: how many recovery tokens were prepared at each accepted length, the likeliest ones;
    branches are ordered by accepted length, then by rank. recovery_tokens `[batch, branches]`: what each branch
    assumes. candidates `[batch, k + 1, n]`: the likeliest recovery tokens after each accepted length, with a branch or
    not. drafted: the branches' continuations, with tokens and token_probs `[batch, branches, depth]` and probs
    `[batch, branches, depth, vocab]`. recovery_probs `[batch, branches]`: the draft's probability of each recovery
    token (None unless recorded). opinion: None unless the fan-out was chosen by it.
    """

    counts: torch.Tensor
    recovery_tokens: torch.Tensor
    candidates: torch.Tensor
    drafted: Drafted
    recovery_probs: torch.Tensor | None
    opinion: Opinion | None

    def tensors(self) -> Tensors:
        """All that are there, in the order that `of_tensors` takes."""
        return (
            *(self.counts, self.recovery_tokens, self.candidates),
            *(() if self.recovery_probs is None else (self.recovery_probs,)),
            *(() if self.opinion is None else self.opinion.tensors()),
            *self.drafted.tensors(),
        )

    @classmethod
    def of_tensors(cls, tensors: Iterable[torch.Tensor], *, sampled: bool, record: bool, opinion: bool) -> DraftTree:
        """From what `tensors` returned."""
        counts, recovery, candidates, *rest = tensors
        recovery_probs = rest.pop(0) if record else None
        own = Opinion(rest.pop(0), rest.pop(0), rest.pop(0)) if opinion else None
        drafted = Drafted.of_tensors(rest, sampled=sampled, record=record)
        return cls(counts, recovery, candidates, drafted, recovery_probs, own)


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

    A branch at accepted length a sees the committed tokens, the first a draft tokens and itself. Its K/V goes to the
    row's scratch blocks, which stand right behind the sequence's own blocks in the table (wherever other sequences'
    tables end: sums over keys may depend on their places) and are laid out step after step.
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
    return DraftTree.of_tensors(outputs, sampled=sampled, record=record, opinion=shape.by_confidence)


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
        opinion, counts = None, fan_out
        if self.shape.by_confidence:
            counts, opinion = self._by_confidence(logits, candidates, fan_out)
        prefixes, ranks = branch_layout(counts, self.shape.branches)
        every = torch.arange(len(rows), device=logits.device)[:, None]
        recovery = candidates[every, prefixes, ranks]
        recovery_probs = None
        if self.record:
            normaliser = logits.logsumexp(-1).gather(1, prefixes)
            recovery_probs = (logits[every, prefixes, recovery] - normaliser).exp()
        drafted = Drafted.joined(self._branches(recovery, prefixes, farthest))
        return DraftTree(counts, recovery, candidates, drafted, recovery_probs, opinion)

    def _by_confidence(
        self, logits: torch.Tensor, candidates: torch.Tensor, tables: torch.Tensor
    ) -> tuple[torch.Tensor, Opinion]:
        """The likeliest outcomes by the draft's softmax at the request's temperature (greedy: at 1)."""
        own = self.rows.sampling.temperature[:, None, None]
        scaled = logits / torch.where(own == 0, 1.0, own)
        normaliser = scaled.logsumexp(-1)
        confidences = (
            scaled[:, :-1].gather(-1, self.draft_tokens.unsqueeze(-1)).squeeze(-1) - normaliser[:, :-1]
        ).exp()
        probs = (scaled.gather(-1, candidates) - normaliser.unsqueeze(-1)).exp()
        others = torch.cat([1 - confidences, torch.ones_like(confidences[:, :1])], 1).clamp(min=1e-6)
        candidate_probs = (probs / others.unsqueeze(-1)).clamp(max=1.0)
        chances = outcome_chances(confidences, candidate_probs[..., : self.shape.widest], tables)
        counts, hit_chance = best_counts(chances, self.shape.branches)
        return counts, Opinion(confidences, candidate_probs, hit_chance)

    def _branches(self, recovery: torch.Tensor, prefixes: torch.Tensor, farthest: int) -> list[Drafted]:
        rows, device = self.rows, recovery.device
        depth, branches = self.shape.depth, self.shape.branches
        first_position = rows.lengths[:, None] + prefixes  # where the recovery token stands
        positions = first_position.unsqueeze(-1) + torch.arange(depth, device=device)  # [batch, branches, depth]
        uniforms = None
        if self.sampled:
            uniforms = uniform(rows.sampling.seeds[:, None, None], positions + 1, Purpose.DRAFT)
        own = rows.tree_starts[:, None] + torch.arange(branches, device=device)  # each branch's first scratch position
        scratch = own.unsqueeze(-1) + branches * torch.arange(depth, device=device)  # [batch, branches, depth]
        slots = slots_of(scratch.view(len(rows), -1), rows.tables, self.runner.block_size).view(scratch.shape)
        tokens = recovery
        steps: list[Drafted] = []
        for step in range(depth):
            forward = StepInput(
                token_ids=tokens,
                positions=positions[:, :, step],
                write_slots=slots[:, :, step],
                block_tables=rows.tables,
                prefix_lengths=first_position,
                context_length=farthest - (depth - step - 1) * branches,
                ancestors=scratch[:, :, : step + 1],
            )
            chosen = choose(
                *(self.runner.decoder.kernels, self.runner.logits(forward), rows.sampling),
                None if uniforms is None else uniforms[:, :, step],
                record=self.record,
                drawing=self.drawing,
                fan_out=None
                if self.next_fan_out is None
                else self.next_fan_out[:, step : step + 1].expand(-1, branches),
            )
            steps.append(chosen)
            tokens = chosen.tokens
        return steps
