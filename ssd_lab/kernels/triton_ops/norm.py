"""Residual add and RMS norm in one pass; reference: `kernels.norm`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ssd_lab.kernels.triton_ops.launching import pdl_options, start_after_previous

ELEMENTS_PER_WARP = 512


@triton.jit
def _add_rms_norm(
    hidden_ptr,
    delta_ptr,
    weight_ptr,
    sum_ptr,
    normed_ptr,
    size,
    eps,
    HAS_DELTA: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < size
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    start_after_previous(PDL)
    offsets = row * size + columns
    values = tl.load(hidden_ptr + offsets, mask=inside, other=0.0)
    if HAS_DELTA:
        delta = tl.load(delta_ptr + offsets, mask=inside, other=0.0)
        values = (values.to(tl.float32) + delta.to(tl.float32)).to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + offsets, values, mask=inside)
    wide = values.to(tl.float32)
    mean_square = tl.sum(wide * wide, 0) / size
    normed = wide * (1.0 / tl.sqrt_rn(mean_square + eps)) * weight
    tl.store(normed_ptr + offsets, normed.to(normed_ptr.dtype.element_ty), mask=inside)


def add_rms_norm(
    hidden: torch.Tensor, delta: torch.Tensor | None, weight: torch.Tensor, eps: float, *, pdl: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `Kernels.add_rms_norm`. One program a row: its sum of squares is cut by the row's size alone."""
    hidden = hidden.contiguous()
    delta = None if delta is None else delta.contiguous()
    rows, size = hidden.shape
    total = hidden if delta is None else torch.empty_like(hidden)
    normed = torch.empty_like(hidden)
    block = triton.next_power_of_2(size)
    _add_rms_norm[(rows,)](
        hidden,
        hidden if delta is None else delta,
        weight,
        total,
        normed,
        size,
        eps,
        HAS_DELTA=delta is not None,
        BLOCK=block,
        num_warps=min(16, max(1, block // ELEMENTS_PER_WARP)),
        **pdl_options(pdl),
    )
    return total, normed
