"""The sequences of one round as tensors, and the forward passes built from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.decoding.sampling import SamplingBatch
from ssd_lab.kernels.step_input import StepInput


@dataclass(frozen=True)
class RowBatch:
    """The sequences of one round, in order, as the target and the draft both see them.

    lengths: committed tokens L of each. previous_tokens, last_tokens: the tokens at L - 2 and L - 1. block_tables: each
    sequence's blocks. sampling: each request's settings.
    """

    lengths: list[int]
    previous_tokens: list[int]
    last_tokens: list[int]
    block_tables: list[list[int]]
    sampling: SamplingBatch

    def __len__(self) -> int:
        return len(self.lengths)


def table_tensor(block_tables: list[list[int]], device: torch.device) -> torch.Tensor:
    """Block tables as `[batch, longest]`, short ones padded with block 0."""
    longest = max(len(table) for table in block_tables)
    return torch.tensor([table + [0] * (longest - len(table)) for table in block_tables], device=device)


def slots_of(positions: torch.Tensor, tables: torch.Tensor, block_size: int) -> torch.Tensor:
    """Cache slot of each position `[batch, rows]`; positions outside the table (or negative) fall into block 0, the
    dump.
    """
    index = torch.div(positions, block_size, rounding_mode="floor")
    inside = (index >= 0) & (index < tables.shape[1])
    blocks = tables.gather(1, torch.where(inside, index, 0))
    return torch.where(inside, blocks * block_size + positions.remainder(block_size), 0)


@dataclass(frozen=True)
class CausalRun:
    """Consecutive positions of each sequence, `[batch, count]`, and where their K/V goes: made once, cut into forwards.

    A position may be -1 (there is no token before the first): that row's result is meaningless and goes nowhere.
    """

    positions: torch.Tensor
    write_slots: torch.Tensor
    prefix_lengths: torch.Tensor
    tables: torch.Tensor
    longest_start: int

    @classmethod
    def starting(cls, starts: list[int], count: int, tables: torch.Tensor, block_size: int) -> CausalRun:
        """Positions `starts[b]` .. `starts[b] + count - 1` of each sequence."""
        raw = torch.tensor(starts, device=tables.device)[:, None] + torch.arange(count, device=tables.device)
        positions = raw.clamp(min=0)
        return cls(positions, slots_of(raw, tables, block_size), positions + 1, tables, max(starts))

    def step(self, token_ids: torch.Tensor, start: int, stop: int) -> StepInput:
        """A forward over `token_ids` `[batch, stop - start]` at that part of the run, each row seeing all before it."""
        return StepInput(
            token_ids=token_ids,
            positions=self.positions[:, start:stop],
            write_slots=self.write_slots[:, start:stop],
            block_tables=self.tables,
            prefix_lengths=self.prefix_lengths[:, start:stop],
            context_length=self.longest_start + stop,
        )


def causal_step(token_ids: torch.Tensor, starts: list[int], tables: torch.Tensor, block_size: int) -> StepInput:
    """One forward over `token_ids` `[batch, rows]` at `starts[b]`, `starts[b] + 1`, ..., each seeing all before it."""
    rows = token_ids.shape[1]
    return CausalRun.starting(starts, rows, tables, block_size).step(token_ids, 0, rows)
