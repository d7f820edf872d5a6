"""EAGLE3 chain: the head meets the target's features of the last round, then decodes k tokens on its own states.

Li et al., "EAGLE-3", arXiv 2503.01840.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.engine.execution import Tensors
from ssd_lab.engine.head_runner import HeadRunner
from ssd_lab.engine.phases.draft_chain import Drafted
from ssd_lab.engine.rows import CausalRun, RowTensors, causal_step


@dataclass(frozen=True)
class NewFeatures:
    """What the target said since the head drafted last, on the device.

    counts `[batch]`: committed tokens whose features are new: rows L - 1 - count .. L - 2 of the head, where L is the
    number of committed tokens. features `[batch, n, feature_size]`, token_ids `[batch, n]`: the feature of each such
    position beside the token that follows it; what lies behind the first `count` is of no account. n is the same every
    round, and at least 1.
    """

    features: torch.Tensor
    token_ids: torch.Tensor
    counts: torch.Tensor

    def tensors(self) -> Tensors:
        """All of them, in the constructor's order."""
        return (self.features, self.token_ids, self.counts)


def condition(
    runner: HeadRunner, rows: RowTensors, new: NewFeatures, *, farthest: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Write the K/V that the new features give, over what the head's own states gave there; returns normed and carried
    states `[batch, 1, hidden]` of row L - 2, which stands for all that is committed.

    Rows behind it are computed as well, and left to be overwritten before anybody sees them. farthest: a bound on the
    cache positions in use.
    """
    num_rows = new.token_ids.shape[1]
    step = causal_step(
        new.token_ids, rows.lengths - 1 - new.counts, rows.tables, runner.block_size, longest=farthest - num_rows
    )
    normed, carried = runner.conditioned(step, new.features)
    last = (new.counts - 1).clamp(min=0)[:, None, None].expand(-1, 1, normed.shape[-1])
    return normed.gather(1, last), carried.gather(1, last)


def eagle_chain(runner: HeadRunner, rows: RowTensors, new: NewFeatures, k: int, *, record: bool) -> Drafted:
    """Draft k tokens after the committed ones."""
    sampled = not rows.sampling.all_greedy
    farthest = runner.executor.context_bound(rows.longest + max(k, new.token_ids.shape[1]))

    def phase(features: torch.Tensor, token_ids: torch.Tensor, counts: torch.Tensor, *own: torch.Tensor) -> Tensors:
        fresh = NewFeatures(features, token_ids, counts)
        return _chain(runner, rows.with_tensors(own), fresh, k, farthest, sampled, record).tensors()

    static = (k, farthest, sampled, sampled and rows.sampling.any_filter, record)
    outputs = runner.call("eagle_chain", static, phase, *new.tensors(), *rows.tensors())
    return Drafted.of_tensors(outputs, sampled=sampled, record=record)


def _chain(
    runner: HeadRunner, rows: RowTensors, new: NewFeatures, k: int, farthest: int, sampled: bool, record: bool
) -> Drafted:
    uniforms = None
    if sampled:  # by the place where each draft token will stand
        places = rows.lengths[:, None] + torch.arange(k, device=rows.lengths.device)
        uniforms = uniform(rows.sampling.seeds[:, None], places, Purpose.DRAFT)
    normed, carried = condition(runner, rows, new, farthest=farthest)
    run = CausalRun.starting(rows.lengths - 1, k - 1, rows.tables, runner.block_size, longest=farthest - k)
    steps: list[Drafted] = []
    for i in range(k):
        if i:
            normed, carried = runner.continued(run.step(steps[-1].tokens[:, None], i - 1, i), carried)
        numbers = None if uniforms is None else uniforms[:, i : i + 1]
        steps.append(runner.choose(normed, rows.sampling, numbers, record=record).row(0))
    return Drafted.joined(steps)
