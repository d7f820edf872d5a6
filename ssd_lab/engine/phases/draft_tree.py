"""Draft tree: while the target verifies k tokens, prepare k more for each of the likeliest outcomes (arXiv
2603.03251).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.decoding.tree import recovery_candidates
from ssd_lab.engine.execution import Tensors
from ssd_lab.engine.phases.branches import BranchRun
from ssd_lab.engine.phases.draft_chain import Drafted, choose
from ssd_lab.engine.rows import RowTensors, causal_step
from ssd_lab.engine.runner import StepRunner

RECORDED_CANDIDATES = 64  # a trace tells the rank of every recovery token among so many


@dataclass(frozen=True)
class DraftTree:
    """Branches prepared for the rows of a round.

    recovery_tokens `[batch, branches]`: the recovery token that each branch assumes (its accepted length is the
    caller's `prefixes`). recovery_probs `[batch, branches]`: the draft's probability of that token (None unless
    recorded). candidates `[batch, k + 1, n]`: the likeliest recovery tokens after each accepted length, whether they
    got a branch or not. drafted: the branches' continuations, with tokens and token_probs `[batch, branches, k]` and
    probs `[batch, branches, k, vocab]`.
    """

    recovery_tokens: torch.Tensor
    recovery_probs: torch.Tensor | None
    candidates: torch.Tensor
    drafted: Drafted

    def tensors(self) -> Tensors:
        """All that are there, in the order that `of_tensors` takes."""
        probs = () if self.recovery_probs is None else (self.recovery_probs,)
        return (self.recovery_tokens, self.candidates, *probs, *self.drafted.tensors())

    @classmethod
    def of_tensors(cls, tensors: Tensors, *, sampled: bool, record: bool) -> DraftTree:
        """From what `tensors` returned."""
        recovery, candidates, *rest = tensors
        recovery_probs = rest.pop(0) if record else None
        return cls(recovery, recovery_probs, candidates, Drafted.of_tensors(rest, sampled=sampled, record=record))


def draft_tree(
    runner: StepRunner,
    rows: RowTensors,
    draft_tokens: torch.Tensor,
    prefixes: torch.Tensor,
    ranks: torch.Tensor,
    *,
    widest: int,
    record: bool,
) -> DraftTree:
    """Extend the draft's cache over the k tokens under verification, fork, and decode all branches k steps in parallel.

    Args: draft_tokens `[batch, k]`, what the target verifies; prefixes, ranks `[batch, branches]`, which outcomes to
    prepare (all rows the same number of branches); widest: a bound on the ranks, plus one.

    A branch at accepted length a sees the committed tokens, the first a draft tokens and itself.
    """
    k, branches = draft_tokens.shape[1], prefixes.shape[1]
    sampled = not rows.sampling.all_greedy
    bound = runner.executor.context_bound
    extended = bound(rows.longest + k)
    longest_start = rows.longest_table * runner.block_size
    farthest = bound(longest_start + k * branches)

    def phase(draft_tokens: torch.Tensor, prefixes: torch.Tensor, ranks: torch.Tensor, *own: torch.Tensor) -> Tensors:
        tree = _Tree(runner, rows.with_tensors(own), draft_tokens, prefixes, ranks)
        return tree.grow(extended, farthest, widest, sampled, record).tensors()

    static = (widest, extended, farthest, sampled, sampled and rows.sampling.any_filter, record)
    outputs = runner.call("draft_tree", static, phase, draft_tokens, prefixes, ranks, *rows.tensors())
    return DraftTree.of_tensors(outputs, sampled=sampled, record=record)


@dataclass(frozen=True)
class _Tree:
    runner: StepRunner
    rows: RowTensors
    draft_tokens: torch.Tensor
    prefixes: torch.Tensor
    ranks: torch.Tensor

    def grow(self, extended: int, farthest: int, widest: int, sampled: bool, record: bool) -> DraftTree:
        """All forwards of the phase. extended, farthest: bounds on the context of the extension and of the branches."""
        rows, runner, k = self.rows, self.runner, self.draft_tokens.shape[1]
        extension = torch.cat([rows.last_tokens[:, None], self.draft_tokens], 1)
        step = causal_step(extension, rows.lengths - 1, rows.tables, runner.block_size, longest=extended - k - 1)
        logits = runner.logits(step)
        kept = min(max(widest, RECORDED_CANDIDATES if record else 0), logits.shape[-1] - 1)
        candidates = recovery_candidates(logits, self.draft_tokens, kept)
        every = torch.arange(len(rows), device=logits.device)[:, None]
        recovery = candidates[every, self.prefixes, self.ranks]
        recovery_probs = None
        if record:
            normaliser = logits.logsumexp(-1).gather(1, self.prefixes)
            recovery_probs = (logits[every, self.prefixes, recovery] - normaliser).exp()
        steps = self._branches(recovery, farthest, sampled, record)
        return DraftTree(recovery, recovery_probs, candidates, Drafted.joined(steps))

    def _branches(self, recovery: torch.Tensor, farthest: int, sampled: bool, record: bool) -> list[Drafted]:
        rows, device = self.rows, recovery.device
        k = self.draft_tokens.shape[1]
        first_position = rows.lengths[:, None] + self.prefixes  # where the recovery token stands
        uniforms = None
        if sampled:  # by the place where each draft token will stand
            places = first_position.unsqueeze(-1) + 1 + torch.arange(k, device=device)
            uniforms = uniform(rows.sampling.seeds[:, None, None], places, Purpose.DRAFT)
        run = BranchRun.starting(rows, first_position, k, self.runner.block_size, farthest=farthest)
        tokens = recovery
        steps: list[Drafted] = []
        for step in range(k):
            numbers = None if uniforms is None else uniforms[:, :, step]
            logits = self.runner.logits(run.step(tokens, step))
            chosen = choose(self.runner.decoder.kernels, logits, rows.sampling, numbers, record=record)
            steps.append(chosen)
            tokens = chosen.tokens
        return steps
