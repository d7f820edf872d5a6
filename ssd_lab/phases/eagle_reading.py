"""What an EAGLE3 head reads in a round: the target's features of what was committed, then its own states.

Li et al., "EAGLE-3", arXiv 2503.01840.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.execution.executor import Tensors
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.phases.head_runner import HeadRunner
from ssd_lab.phases.reading import Reading, States
from ssd_lab.rounds.rows import RowTensors, causal_step


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


@dataclass(frozen=True)
class HeadReading(Reading):
    """A head, with what is new for it."""

    runner: HeadRunner
    rows: RowTensors
    new: NewFeatures

    @property
    def starts(self) -> torch.Tensor:
        """Row i joins feature i with token i + 1, so there is one row fewer than tokens; a padding row has neither."""
        return (self.rows.lengths - 1).clamp(min=0)

    def tensors(self) -> Tensors:
        """The new features', then the rows'."""
        return (*self.new.tensors(), *self.rows.tensors())

    def with_tensors(self, tensors: Tensors) -> HeadReading:
        """The same held in other tensors."""
        features, token_ids, counts, *own = tensors
        return HeadReading(self.runner, self.rows.with_tensors(own), NewFeatures(features, token_ids, counts))

    def condition(self, farthest: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the K/V that the new features give, over what the head's own states gave there; returns normed and
        carried states `[batch, 1, hidden]` of row L - 2, which stands for all that is committed.

        Rows behind it are computed as well, and left to be overwritten before anybody sees them. farthest: a bound on
        the cache positions in use.
        """
        new, rows = self.new, self.rows
        starts, num_rows = rows.lengths - 1 - new.counts, new.token_ids.shape[1]
        step = causal_step(new.token_ids, starts, rows.tables, self.block_size, longest=farthest - num_rows)
        normed, carried = self.runner.conditioned(step, new.features)
        last = (new.counts - 1).clamp(min=0)[:, None, None].expand(-1, 1, normed.shape[-1])
        return normed.gather(1, last), carried.gather(1, last)

    def begin(self, farthest: int) -> tuple[torch.Tensor, States]:
        """See `condition`. Tokens that the head cannot name get a probability of 0."""
        normed, carried = self.condition(farthest)
        return self.runner.target_logits(normed), carried

    def follow(self, step: StepInput, states: States) -> tuple[torch.Tensor, States]:
        """One forward on the head's own states."""
        if states is None:
            raise ValueError("a head's nodes feed on the states of their parents")
        normed, carried = self.runner.continued(step, states)
        return self.runner.target_logits(normed), carried
