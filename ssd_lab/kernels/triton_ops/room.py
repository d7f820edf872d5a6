"""Rows with room behind them, so that the last tile of a product of many rows has all the lines that it fetches.

The copy engine takes up to twice as long for a tile with lines beyond the end of its matrix: on an H200, 136 rows of
the head of Llama 1B took 365 us, and with 120 lines of anything behind them 225 (docs/results/h200-room.md). What lies
there reaches no result: each row's sums are its own.
"""

from __future__ import annotations

import torch

MOST_ROWS = 256  # of a tile
FEW_ROWS = 64  # as many are one tile of few rows, which is made for less


def rows_with_room(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """An empty tensor `[..., n]`, with room for whole tiles behind its lines if they are many."""
    *leading, columns = shape
    rows = torch.Size(leading).numel()
    whole = rows if rows <= FEW_ROWS else -(-rows // MOST_ROWS) * MOST_ROWS
    return torch.empty(whole, columns, dtype=dtype, device=device)[:rows].view(shape)


def with_room(rows: torch.Tensor, tile_rows: int) -> torch.Tensor:
    """The contiguous rows `[n, columns]` and lines behind them up to whole tiles, if there is room."""
    count, columns = rows.shape
    whole = -(-count // tile_rows) * tile_rows
    held = rows.untyped_storage().nbytes() // rows.element_size() - rows.storage_offset()
    return rows if held < whole * columns else rows.as_strided((whole, columns), (columns, 1))
