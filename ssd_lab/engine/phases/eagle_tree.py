"""EAGLE3 tree: while the target verifies k tokens, the head prepares k more for each of the likeliest outcomes (arXiv
2603.03251, with the head of arXiv 2503.01840 as the draft).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.decoding.tree import recovery_candidates
from ssd_lab.engine.execution import Tensors
from ssd_lab.engine.head_runner import HeadRunner
from ssd_lab.engine.phases.branches import BranchRun
from ssd_lab.engine.phases.draft_chain import Drafted
from ssd_lab.engine.phases.draft_tree import RECORDED_CANDIDATES, DraftTree, Fork, TreeShape
from ssd_lab.engine.phases.eagle_chain import NewFeatures, condition
from ssd_lab.engine.rows import CausalRun, RowTensors


def eagle_tree(
    runner: HeadRunner,
    rows: RowTensors,
    new: NewFeatures,
    draft_tokens: torch.Tensor,
    fan_out: torch.Tensor,
    shape: TreeShape,
    *,
    record: bool,
) -> DraftTree:
    """Meet the last round's features, follow the k tokens under verification on the head's own states, fork, and decode
    all branches in parallel.

    Arguments and result are those of `draft_tree`. Recovery tokens are tokens that the head can name.
    """
    k = draft_tokens.shape[1]
    sampled = not rows.sampling.all_greedy
    bound = runner.executor.context_bound
    extended = bound(rows.longest + max(k, new.token_ids.shape[1]))
    farthest = bound(rows.longest_table * runner.block_size + shape.depth * shape.branches)

    def phase(*tensors: torch.Tensor) -> Tensors:
        features, token_ids, counts, draft_tokens, fan_out, *own = tensors
        fresh = NewFeatures(features, token_ids, counts)
        tree = _Tree(runner, rows.with_tensors(own), fresh, draft_tokens, shape)
        return tree.grow(fan_out, extended, farthest, sampled, record).tensors()

    static = (shape, extended, farthest, sampled, sampled and rows.sampling.any_filter, record)
    inputs = (*new.tensors(), draft_tokens, fan_out, *rows.tensors())
    outputs = runner.call("eagle_tree", static, phase, *inputs)
    return DraftTree.of_tensors(outputs, sampled=sampled, record=record, opinion=shape.by_confidence)


@dataclass(frozen=True)
class _Tree:
    runner: HeadRunner
    rows: RowTensors
    new: NewFeatures
    draft_tokens: torch.Tensor
    shape: TreeShape

    def grow(self, fan_out: torch.Tensor, extended: int, farthest: int, sampled: bool, record: bool) -> DraftTree:
        """All forwards of the phase. extended, farthest: bounds on the context of the extension and of the branches."""
        normed, carried = self._extension(extended)
        logits = self.runner.target_logits(normed)
        kept = max(self.shape.widest, RECORDED_CANDIDATES if record else 0)
        kept = min(kept, self.runner.head.vocabulary.size - 1)  # no more than the head has names for
        candidates = recovery_candidates(logits, self.draft_tokens, kept)
        temperature = self.rows.sampling.temperature
        fork = Fork.chosen(logits, self.draft_tokens, candidates, fan_out, self.shape, temperature)
        recovery, recovery_probs = fork.recovery(logits, candidates, record=record)
        every = torch.arange(len(self.rows), device=logits.device)[:, None]
        first_states = carried[every, fork.prefixes]
        steps = self._branches(recovery, fork.prefixes, first_states, farthest, sampled, record)
        return DraftTree(fork.counts, recovery, candidates, Drafted.joined(steps), recovery_probs, fork.opinion)

    def _extension(self, extended: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Normed and carried states `[batch, k + 1, hidden]` after the committed tokens and each draft token."""
        rows, runner, k = self.rows, self.runner, self.draft_tokens.shape[1]
        states = [condition(runner, rows, self.new, farthest=extended)]
        run = CausalRun.starting(rows.lengths - 1, k, rows.tables, runner.block_size, longest=extended - k)
        for i in range(k):
            states.append(runner.continued(run.step(self.draft_tokens[:, i : i + 1], i, i + 1), states[-1][1]))
        return torch.cat([normed for normed, _ in states], 1), torch.cat([carried for _, carried in states], 1)

    def _branches(
        self,
        recovery: torch.Tensor,
        prefixes: torch.Tensor,
        carried: torch.Tensor,
        farthest: int,
        sampled: bool,
        record: bool,
    ) -> list[Drafted]:
        rows, device, depth = self.rows, recovery.device, self.shape.depth
        place = rows.lengths[:, None] + prefixes  # where the recovery token stands; its row is the one before
        uniforms = None
        if sampled:
            places = place.unsqueeze(-1) + 1 + torch.arange(depth, device=device)
            uniforms = uniform(rows.sampling.seeds[:, None, None], places, Purpose.DRAFT)
        # a padding row has no committed tokens; its place is the dump
        run = BranchRun.starting(rows, (place - 1).clamp(min=0), depth, self.runner.block_size, farthest=farthest)
        tokens = recovery
        steps: list[Drafted] = []
        for step in range(depth):
            normed, carried = self.runner.continued(run.step(tokens, step), carried)
            numbers = None if uniforms is None else uniforms[:, :, step]
            steps.append(self.runner.choose(normed, rows.sampling, numbers, record=record))
            tokens = steps[-1].tokens
        return steps
