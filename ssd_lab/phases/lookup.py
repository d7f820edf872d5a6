"""Hit or miss: which of a tree's branches, if any, was prepared for the outcome of each row."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.execution.phase import Phase


@dataclass(frozen=True)
class LookupInputs:
    """counts `[batch, k + 1]`, recovery_tokens `[batch, branches]`: of a `DraftTree`, each row's own. num_accepted,
    recovery `[batch]`: the outcome of the round that it was grown beside.
    """

    counts: torch.Tensor
    recovery_tokens: torch.Tensor
    num_accepted: torch.Tensor
    recovery: torch.Tensor


@dataclass(frozen=True)
class Found:
    """hit `[batch]`: was the outcome prepared? branch `[batch]`: the branch that assumes it. nearest `[batch]`: the
    likeliest branch at the same accepted length. Both are -1 where there is none.
    """

    hit: torch.Tensor
    branch: torch.Tensor
    nearest: torch.Tensor


@dataclass(frozen=True)
class LookupPhase(Phase[object, LookupInputs, Found]):
    """Needs no model, so it runs wherever the outcome lies: on the host as it is (runner: None), else by the runner of
    that device.
    """

    name = "lookup"

    def run(self, runner: object, inputs: LookupInputs) -> Found:
        """The branches for these outcomes."""
        counts, places = inputs.counts, inputs.counts.shape[1]
        inside = (inputs.num_accepted >= 0) & (inputs.num_accepted < places)
        place = torch.where(inside, inputs.num_accepted, 0)[:, None]
        end = counts.cumsum(1).gather(1, place)
        start = end - counts.gather(1, place)
        branches = torch.arange(inputs.recovery_tokens.shape[1], device=counts.device)
        prepared = inside[:, None] & (branches >= start) & (branches < end)
        same = prepared & (inputs.recovery_tokens == inputs.recovery[:, None])
        hit = same.any(1)
        branch = torch.where(hit, same.int().argmax(1), -1)
        return Found(hit, branch, torch.where(prepared.any(1), start.squeeze(1), -1))
