"""What an EAGLE3 head reads in a round: the target's features of what was committed, then its own states.

Li et al., "EAGLE-3", arXiv 2503.01840.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.kernels.step_input import StepInput
from ssd_lab.phases.reading import Begun, Reading, States
from ssd_lab.rounds.head_runner import HeadRunner
from ssd_lab.rounds.rows import CausalRun, RowTensors, causal_step


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


@dataclass(frozen=True)
class HeadReading(Reading):
    """A head, with what is new for it."""

    rows: RowTensors
    new: NewFeatures

    @property
    def starts(self) -> torch.Tensor:
        """Row i joins feature i with token i + 1, so there is one row fewer than tokens; a padding row has neither."""
        return (self.rows.lengths - 1).clamp(min=0)

    def reach(self, count: int) -> int:
        """There may be more new features than outlooks."""
        return max(count, self.new.token_ids.shape[1])

    def begin(self, runner: HeadRunner, context: int, *, following: int = 0) -> Begun:
        """Write the K/V that the new features give, over what the head's own states gave there; the outlook is that of
        row L - 2, which stands for all that is committed.

        Rows behind it are computed as well, and left to be overwritten before anybody sees them.
        """
        new, rows = self.new, self.rows
        starts, count = rows.lengths - 1 - new.counts, new.token_ids.shape[1]
        step = causal_step(
            runner.kernels, new.token_ids, starts, rows.tables, runner.block_size, longest=context - count
        )
        normed, carried = runner.conditioned(step, new.features)
        last = (new.counts - 1).clamp(min=0)[:, None, None].expand(-1, 1, normed.shape[-1])
        run = CausalRun.starting(
            runner.kernels, rows.lengths - 1, following, rows.tables, runner.block_size, longest=context - following - 1
        )
        return Begun(normed.gather(1, last), carried.gather(1, last), run)

    def extend(self, runner: HeadRunner, tokens: torch.Tensor, context: int) -> tuple[torch.Tensor, States]:
        """One forward for each token, on the head's own states."""
        outlook, states, run = self.begin(runner, context, following=tokens.shape[1])
        outlooks, handed_on = [outlook], [states]
        for i in range(tokens.shape[1]):
            outlook, states = self.follow(runner, run.step(tokens[:, i : i + 1], i, i + 1), handed_on[-1])
            outlooks.append(outlook)
            handed_on.append(states)
        return torch.cat(outlooks, 1), torch.cat([own for own in handed_on if own is not None], 1)

    def follow(self, runner: HeadRunner, step: StepInput, states: States) -> tuple[torch.Tensor, States]:
        """One forward on the head's own states."""
        if states is None:
            raise ValueError("a head's tokens feed on the states of those before them")
        return runner.continued(step, states)
