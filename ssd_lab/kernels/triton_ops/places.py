"""Where tokens stand in the KV cache, in one launch. Reference: `kernels.places.causal_places`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ssd_lab.kernels.places import CausalPlaces
from ssd_lab.kernels.triton_ops.launching import launch, pdl_options, start_after_previous

PLACES = 256  # of one program


@triton.jit
def _causal_places(
    starts_ptr, tables_ptr, positions_ptr, slots_ptr, prefix_ptr, count, width, table_stride, block_size,
    PLACES: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * PLACES + tl.arange(0, PLACES)
    inside = place < count
    start_after_previous(PDL)
    raw = tl.load(starts_ptr + row) + place
    position = tl.maximum(raw, 0)
    index = position // block_size
    has_block = inside & (raw >= 0) & (index < width)
    block = tl.load(tables_ptr + row * table_stride + index, mask=has_block, other=0)
    slot = tl.where(has_block, block * block_size + position % block_size, 0)
    tl.store(positions_ptr + row * count + place, position, mask=inside)
    tl.store(slots_ptr + row * count + place, slot, mask=inside)
    tl.store(prefix_ptr + row * count + place, position + 1, mask=inside)


def causal_places(
    starts: torch.Tensor, count: int, tables: torch.Tensor, block_size: int, *, pdl: bool = False
) -> CausalPlaces:
    """See `kernels.places.causal_places`."""
    rows, width = tables.shape
    starts, tables = starts.contiguous(), tables if tables.stride(1) == 1 else tables.contiguous()
    made = CausalPlaces(*torch.empty(3, rows, count, dtype=torch.int64, device=tables.device).unbind())
    launch(
        _causal_places, (rows, triton.cdiv(max(1, count), PLACES)),
        starts, tables, *made, count, width, tables.stride(0), block_size,
        PLACES=min(PLACES, triton.next_power_of_2(max(1, count))), num_warps=1, **pdl_options(pdl),
    )  # fmt: skip
    return made
