"""Hit or miss: which of a tree's branches, if any, was prepared for the outcome of each row."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.execution.phase import Phase

_LENGTH = 2**32  # an outcome as one number: accepted length times this, plus the recovery token


def outcome_keys(num_accepted: torch.Tensor, recovery_tokens: torch.Tensor) -> torch.Tensor:
    """Outcomes as single numbers."""
    return num_accepted * _LENGTH + recovery_tokens


def branch_keys(counts: torch.Tensor, recovery_tokens: torch.Tensor) -> torch.Tensor:
    """The outcome that each branch assumes, `[batch, branches]`, from these fields of a `DraftTree`. It is made while
    the target verifies, so that the lookup itself is short.
    """
    branches = torch.arange(recovery_tokens.shape[1], device=counts.device)
    accepted = (counts.cumsum(1)[:, None] <= branches[:, None]).sum(-1)  # branches are ordered by accepted length
    return outcome_keys(accepted, recovery_tokens)


@dataclass(frozen=True)
class LookupInputs:
    """prepared `[batch, branches]`: each row's `branch_keys`. outcomes `[batch]`: the keys of what came."""

    prepared: torch.Tensor
    outcomes: torch.Tensor


@dataclass(frozen=True)
class Found:
    """hit `[batch]`: was the outcome prepared? branch `[batch]`: the branch that assumes it, if so."""

    hit: torch.Tensor
    branch: torch.Tensor


@dataclass(frozen=True)
class LookupPhase(Phase[object, LookupInputs, Found]):
    """Needs no model, so it runs wherever the outcome lies: on the host as it is (runner: None), else by the runner of
    that device.
    """

    name = "lookup"

    def run(self, runner: object, inputs: LookupInputs) -> Found:
        """The branches for these outcomes."""
        hit, branch = (inputs.prepared == inputs.outcomes[:, None]).max(1)
        return Found(hit, branch)
