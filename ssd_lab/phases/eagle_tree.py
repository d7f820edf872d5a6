"""EAGLE3 tree: while the target verifies k tokens, the head prepares k more for each of the likeliest outcomes (arXiv
2603.03251, with the head of arXiv 2503.01840 as the draft).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.decoding.tree import recovery_candidates
from ssd_lab.execution.executor import Tensors
from ssd_lab.phases.branches import BranchRun
from ssd_lab.phases.draft_tree import RECORDED_CANDIDATES, Fork, TreeShape
from ssd_lab.phases.drawing import PLAIN, Drawing
from ssd_lab.phases.eagle_reading import HeadReading
from ssd_lab.rounds.drafted import Drafted, DraftTree
from ssd_lab.rounds.rows import CausalRun


def eagle_tree(
    reading: HeadReading,
    draft_tokens: torch.Tensor,
    fan_out: torch.Tensor,
    shape: TreeShape,
    *,
    record: bool,
    drawing: Drawing = PLAIN,
    next_fan_out: torch.Tensor | None = None,
) -> DraftTree:
    """Meet the last round's features, follow the k tokens under verification on the head's own states, fork, and decode
    all branches in parallel.

    Arguments and result are those of `draft_tree`. Recovery tokens are tokens that the head can name.
    """
    rows, k = reading.rows, draft_tokens.shape[1]
    sampled = not rows.sampling.all_greedy
    bound = reading.executor.context_bound
    extended = bound(rows.longest + max(k, reading.new.token_ids.shape[1]))
    farthest = bound(rows.longest_table * reading.block_size + shape.depth * shape.branches)
    modified = (next_fan_out,) if sampled and drawing.modifies and next_fan_out is not None else ()
    given = (draft_tokens, fan_out, *modified)

    def phase(*tensors: torch.Tensor) -> Tensors:
        tokens, counts, *rest = tensors[: len(given)]
        own = reading.with_tensors(tensors[len(given) :])
        tree = _Tree(own, tokens, shape, sampled, record, drawing, rest[0] if rest else None)
        return tree.grow(counts, extended, farthest).tensors()

    static = (shape, extended, farthest, sampled, sampled and rows.sampling.any_filter, record, drawing)
    outputs = reading.runner.call("eagle_tree", static, phase, *given, *reading.tensors())
    return DraftTree.of_tensors(
        outputs, sampled=sampled, record=record, opinion=shape.by_confidence, raw=drawing.keeps_raw
    )


@dataclass(frozen=True)
class _Tree:
    reading: HeadReading
    draft_tokens: torch.Tensor
    shape: TreeShape
    sampled: bool
    record: bool
    drawing: Drawing
    next_fan_out: torch.Tensor | None

    def grow(self, fan_out: torch.Tensor, extended: int, farthest: int) -> DraftTree:
        """All forwards of the phase. extended, farthest: bounds on the context of the extension and of the branches."""
        rows, runner = self.reading.rows, self.reading.runner
        normed, carried = self._extension(extended)
        logits = runner.target_logits(normed)
        kept = max(self.shape.widest, RECORDED_CANDIDATES if self.record else 0)
        kept = min(kept, runner.head.vocabulary.size - 1)  # no more than the head has names for
        candidates = recovery_candidates(logits, self.draft_tokens, kept)
        fork = Fork.chosen(logits, self.draft_tokens, candidates, fan_out, self.shape, rows.sampling.temperature)
        recovery, recovery_probs = fork.recovery(logits, candidates, record=self.record)
        every = torch.arange(len(rows), device=logits.device)[:, None]
        steps = self._branches(recovery, fork.prefixes, carried[every, fork.prefixes], farthest)
        return DraftTree(fork.counts, recovery, candidates, Drafted.joined(steps), recovery_probs, fork.opinion)

    def _extension(self, extended: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Normed and carried states `[batch, k + 1, hidden]` after the committed tokens and each draft token."""
        rows, runner, k = self.reading.rows, self.reading.runner, self.draft_tokens.shape[1]
        states = [self.reading.condition(extended)]
        run = CausalRun.starting(rows.lengths - 1, k, rows.tables, runner.block_size, longest=extended - k)
        for i in range(k):
            states.append(runner.continued(run.step(self.draft_tokens[:, i : i + 1], i, i + 1), states[-1][1]))
        return torch.cat([normed for normed, _ in states], 1), torch.cat([carried for _, carried in states], 1)

    def _branches(
        self, recovery: torch.Tensor, prefixes: torch.Tensor, carried: torch.Tensor, farthest: int
    ) -> list[Drafted]:
        rows, runner = self.reading.rows, self.reading.runner
        depth, branches = self.shape.depth, self.shape.branches
        place = rows.lengths[:, None] + prefixes  # where the recovery token stands; its row is the one before
        uniforms = None
        if self.sampled:
            places = place.unsqueeze(-1) + 1 + torch.arange(depth, device=recovery.device)
            uniforms = uniform(rows.sampling.seeds[:, None, None], places, Purpose.DRAFT)
        # a padding row has no committed tokens; its place is the dump
        run = BranchRun.starting(rows, (place - 1).clamp(min=0), depth, runner.block_size, farthest=farthest)
        tokens = recovery
        steps: list[Drafted] = []
        for step in range(depth):
            normed, carried = runner.continued(run.step(tokens, step), carried)
            cached = None if self.next_fan_out is None else self.next_fan_out[:, step : step + 1].expand(-1, branches)
            chosen = runner.choose(
                *(normed, rows.sampling, None if uniforms is None else uniforms[:, :, step]),
                record=self.record,
                drawing=self.drawing,
                fan_out=cached,
            )
            steps.append(chosen)
            tokens = chosen.tokens
        return steps
