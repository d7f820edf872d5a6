"""Residual add and RMS norm in one pass; reference: `kernels.norm`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ssd_lab.kernels.product import Product
from ssd_lab.kernels.triton_ops.launching import launch, launch_next, pdl_options, wait_for_previous
from ssd_lab.kernels.triton_ops.partials import load_product, pieces_of
from ssd_lab.kernels.triton_ops.room import rows_with_room

ELEMENTS_PER_WARP = 256


@triton.jit
def _add_rms_norm(
    hidden_ptr,
    delta_ptr,
    weight_ptr,
    sum_ptr,
    normed_ptr,
    size,
    eps,
    piece,
    HAS_DELTA: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    launch_next(PDL)
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < size
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    wait_for_previous(PDL)
    offsets = row * size + columns
    values = tl.load(hidden_ptr + offsets, mask=inside, other=0.0)
    if HAS_DELTA:
        delta = load_product(delta_ptr + offsets, inside, piece, SPLITS, sum_ptr.dtype.element_ty)
        values = (values.to(tl.float32) + delta).to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + offsets, values, mask=inside)
    wide = values.to(tl.float32)
    mean_square = tl.sum(wide * wide, 0) / size
    normed = wide * (1.0 / tl.sqrt_rn(mean_square + eps)) * weight
    tl.store(normed_ptr + offsets, normed.to(normed_ptr.dtype.element_ty), mask=inside)


def add_rms_norm(
    hidden: torch.Tensor, delta: Product | None, weight: torch.Tensor, eps: float, *, pdl: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `Kernels.add_rms_norm`. One program a row: its sum of squares is cut by the row's size alone."""
    hidden = hidden.contiguous()
    added, splits, _ = pieces_of(hidden if delta is None else delta)
    rows, size = hidden.shape
    total = hidden if delta is None else torch.empty_like(hidden)
    normed = rows_with_room(tuple(hidden.shape), hidden.dtype, hidden.device)
    block = triton.next_power_of_2(size)
    launch(
        _add_rms_norm,
        (rows,),
        hidden,
        added,
        weight,
        total,
        normed,
        size,
        eps,
        hidden.numel(),
        HAS_DELTA=delta is not None,
        SPLITS=splits,
        BLOCK=block,
        num_warps=min(16, max(1, block // ELEMENTS_PER_WARP)),
        **pdl_options(pdl),
    )
    return total, normed
