"""EAGLE3 chain: the head meets the target's features of the last round, then decodes k tokens on its own states.

Li et al., "EAGLE-3", arXiv 2503.01840.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.execution.executor import Tensors
from ssd_lab.phases.drawing import PLAIN, Drawing
from ssd_lab.phases.eagle_reading import HeadReading
from ssd_lab.rounds.drafted import Drafted
from ssd_lab.rounds.rows import CausalRun


def eagle_chain(
    reading: HeadReading,
    k: int,
    *,
    record: bool,
    drawing: Drawing = PLAIN,
    fan_out: torch.Tensor | None = None,
) -> Drafted:
    """Draft k tokens after the committed ones. `drawing` and `fan_out` as in `draft_chain`."""
    rows = reading.rows
    sampled = not rows.sampling.all_greedy
    farthest = reading.executor.context_bound(rows.longest + max(k, reading.new.token_ids.shape[1]))
    modified = (fan_out,) if sampled and drawing.modifies and fan_out is not None else ()

    def phase(*tensors: torch.Tensor) -> Tensors:
        given, own = tensors[: len(modified)], tensors[len(modified) :]
        chain = _Chain(reading.with_tensors(own), farthest, sampled, record, drawing, given[0] if given else None)
        return chain.draft(k).tensors()

    static = (k, farthest, sampled, sampled and rows.sampling.any_filter, record, drawing)
    outputs = reading.runner.call("eagle_chain", static, phase, *modified, *reading.tensors())
    return Drafted.of_tensors(outputs, sampled=sampled, record=record, raw=drawing.keeps_raw)


@dataclass(frozen=True)
class _Chain:
    reading: HeadReading
    farthest: int
    sampled: bool
    record: bool
    drawing: Drawing
    fan_out: torch.Tensor | None

    def draft(self, k: int) -> Drafted:
        """k forwards, one after the other."""
        rows, runner = self.reading.rows, self.reading.runner
        uniforms = None
        if self.sampled:  # by the place where each draft token will stand
            places = rows.lengths[:, None] + torch.arange(k, device=rows.lengths.device)
            uniforms = uniform(rows.sampling.seeds[:, None], places, Purpose.DRAFT)
        normed, carried = self.reading.condition(self.farthest)
        run = CausalRun.starting(rows.lengths - 1, k - 1, rows.tables, runner.block_size, longest=self.farthest - k)
        steps: list[Drafted] = []
        for i in range(k):
            if i:
                normed, carried = runner.continued(run.step(steps[-1].tokens[:, None], i - 1, i), carried)
            chosen = runner.choose(
                *(normed, rows.sampling, None if uniforms is None else uniforms[:, i : i + 1]),
                record=self.record,
                drawing=self.drawing,
                fan_out=None if self.fan_out is None else self.fan_out[:, i : i + 1],
            )
            steps.append(chosen.row(0))
        return Drafted.joined(steps)
