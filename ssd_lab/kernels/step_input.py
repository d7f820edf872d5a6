"""What one forward pass needs to know besides the weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class StepInput:
    """One forward pass over `rows` query rows of each of `batch` sequences.

    token_ids, positions: `[batch, rows]`, int64; positions are those of the rotary embedding.
    write_slots: `[batch, rows]`, int64; where each row's K/V goes: block * block_size + offset. Block 0 is a dump for
    padding rows, which is never read.
    block_tables: `[batch, max_blocks]`, int64; the block of each cache position, padded with block 0.
    prefix_lengths: `[batch, rows]`, int64; a row sees cache positions 0 .. prefix_length - 1, its own included if it is
    a plain causal row.
    context_length: the largest cache position that any row sees, plus one; on the host, so that no device is read.
    ancestors: `[batch, rows, depth]`, int64, or None; further cache positions that a row sees, of a tree's branch,
    padded with -1.
    text_order: a row's bits must be those of the same tokens in a chain, wherever its ancestors lie in the cache.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    write_slots: torch.Tensor
    block_tables: torch.Tensor
    prefix_lengths: torch.Tensor
    context_length: int
    ancestors: torch.Tensor | None = None
    text_order: bool = False
