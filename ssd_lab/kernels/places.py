"""Where tokens stand in the KV cache."""

from __future__ import annotations

from typing import NamedTuple

import torch


class CausalPlaces(NamedTuple):
    """Of consecutive tokens, `[batch, count]` each: their positions, where their K/V goes, and how many cache positions
    each sees.
    """

    positions: torch.Tensor
    write_slots: torch.Tensor
    prefix_lengths: torch.Tensor


def causal_places(starts: torch.Tensor, count: int, tables: torch.Tensor, block_size: int) -> CausalPlaces:
    """Places `starts[b]` .. `starts[b] + count - 1` of each sequence. One below 0 counts as 0, and its K/V goes to the
    dump.
    """
    raw = starts[:, None] + torch.arange(count, device=tables.device)
    positions = raw.clamp(min=0)
    return CausalPlaces(positions, slots_of(raw, tables, block_size), positions + 1)


def slots_of(positions: torch.Tensor, tables: torch.Tensor, block_size: int) -> torch.Tensor:
    """Cache slot of each position `[batch, rows]`; positions outside the table (or negative) fall into block 0, the
    dump.
    """
    index = torch.div(positions, block_size, rounding_mode="floor")
    inside = (index >= 0) & (index < tables.shape[1])
    blocks = tables.gather(1, torch.where(inside, index, 0))
    return torch.where(inside, blocks * block_size + positions.remainder(block_size), 0)
