"""Draft chain: the draft decodes k tokens for every row, one forward each, all in one phase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.execution.phase import Phase
from ssd_lab.phases.reading import Reading
from ssd_lab.rounds.drafted import Drafted
from ssd_lab.rounds.drawing import PLAIN, Drawing
from ssd_lab.rounds.rows import Bounds
from ssd_lab.rounds.runner import Runner


@dataclass(frozen=True)
class ChainInputs:
    """fan_out `[batch, k]`: candidates that will be cached at each place, where the drawing asks for them."""

    reading: Reading
    fan_out: torch.Tensor | None = None


@dataclass(frozen=True)
class ChainPhase(Phase[Runner, ChainInputs, Drafted]):
    """k draft tokens after the committed ones of each row.

    context: a bound on the cache positions in use.
    """

    name: ClassVar[str] = "draft_chain"

    k: int
    context: int
    drawing: Drawing

    def run(self, runner: Runner, inputs: ChainInputs) -> Drafted:
        """k forwards, one after the other."""
        reading, rows = inputs.reading, inputs.reading.rows
        uniforms = None
        if not rows.sampling.all_greedy:  # by the place where each draft token will stand
            places = rows.lengths[:, None] + torch.arange(self.k, device=rows.lengths.device)
            uniforms = uniform(rows.sampling.seeds[:, None], places, Purpose.DRAFT)
        outlook, states, run = reading.begin(runner, self.context, following=self.k - 1)
        steps: list[Drafted] = []
        for i in range(self.k):
            chosen = runner.choose(
                outlook,
                rows.sampling,
                None if uniforms is None else uniforms[:, i : i + 1],
                drawing=self.drawing,
                fan_out=None if inputs.fan_out is None else inputs.fan_out[:, i : i + 1],
            )
            steps.append(chosen.row(0))
            if i < self.k - 1:
                outlook, states = reading.follow(runner, run.step(chosen.tokens, i, i + 1), states)
        return Drafted.joined(steps)


def draft_chain(
    runner: Runner,
    reading: Reading,
    bounds: Bounds,
    k: int,
    *,
    drawing: Drawing = PLAIN,
    fan_out: torch.Tensor | None = None,
) -> Drafted:
    """Run a `ChainPhase` over these rows; arguments as there."""
    modified = fan_out if drawing.modifies and not reading.rows.sampling.all_greedy else None
    phase = ChainPhase(k, runner.bound(bounds.length + reading.reach(k)), drawing)
    return runner.run(phase, ChainInputs(reading, modified))
