"""What one forward pass needs to know besides the weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class StepInput:
    """One forward pass over `rows` query rows of each of `batch` sequences.

    token_ids: `[batch, rows]`, int64.
    positions: `[batch, rows]`, int64; the rotary position of each row.
    write_slots: `[batch, rows]`, int64; where each row's K/V goes: block * block_size + offset. Slot 0..block_size-1
    (block 0)
        is a dump for padding rows and is never read.
    block_tables: `[batch, max_blocks]`, int64; block of each cache position, padded with block 0.
    prefix_lengths: `[batch, rows]`, int64; row sees cache positions 0 .. prefix_length - 1 (its own included for a
    plain causal row). context_length: the largest cache position that any row sees, plus one, as a Python int (no
    device read needed). ancestors: `[batch, rows, depth]`, int64, or None; further cache positions a row sees (tree
    branches), padded with -1.
        Positions index the block table as the prefix does.
    text_order: a row's bits must be those of the same tokens in a chain, wherever its ancestors lie. (Backends that sum
    over prefix and ancestors as one sequence anyway need not look.)
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    write_slots: torch.Tensor
    block_tables: torch.Tensor
    prefix_lengths: torch.Tensor
    context_length: int
    ancestors: torch.Tensor | None = None
    text_order: bool = False
