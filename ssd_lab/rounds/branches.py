"""Branches of a tree, step by step: where their rows stand, where their K/V goes, and what they see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ssd_lab.kernels.interface import Kernels
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.rounds.rows import RowTensors


@dataclass(frozen=True)
class BranchRun:
    """All branches of all rows, `num_steps` tokens long, one token a step.

    prefix_lengths `[batch, branches]`: the cache positions before the branch, all of which it sees, and so the position
    of its first row. A branch sees itself and no other. K/V goes to the row's scratch blocks, which stand right behind
    the sequence's own blocks in the table (wherever other sequences' tables end: sums over keys may depend on their
    places), laid out step after step. farthest: a bound on the scratch positions in use.
    """

    prefix_lengths: torch.Tensor
    scratch: torch.Tensor  # [batch, branches, num_steps], positions in the table
    slots: torch.Tensor  # [batch, branches, num_steps]
    tables: torch.Tensor
    farthest: int

    @classmethod
    def starting(
        cls,
        kernels: Kernels[Any],
        rows: RowTensors,
        prefix_lengths: torch.Tensor,
        num_steps: int,
        block_size: int,
        *,
        farthest: int,
    ) -> BranchRun:
        """Branches that fork off behind so many cache positions."""
        branches = prefix_lengths.shape[1]
        places = kernels.causal_places(rows.tree_starts, branches * num_steps, rows.tables, block_size)
        scratch, slots = (each.view(len(rows), num_steps, branches).mT for each in places[:2])
        return cls(prefix_lengths, scratch.contiguous(), slots, rows.tables, farthest)

    def step(self, token_ids: torch.Tensor, index: int) -> StepInput:
        """The forward over every branch's token number `index`, `[batch, branches]`."""
        branches, num_steps = self.scratch.shape[1:]
        return StepInput(
            token_ids=token_ids,
            positions=self.prefix_lengths + index,
            write_slots=self.slots[:, :, index],
            block_tables=self.tables,
            prefix_lengths=self.prefix_lengths,
            context_length=self.farthest - (num_steps - index - 1) * branches,
            ancestors=self.scratch[:, :, : index + 1],
        )
