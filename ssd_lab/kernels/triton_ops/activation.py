"""The gated activation of the MLP; reference: `TorchKernels.gated_silu`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ssd_lab.kernels.product import Product
from ssd_lab.kernels.triton_ops.launching import launch, launch_next, pdl_options, wait_for_previous
from ssd_lab.kernels.triton_ops.partials import load_product, pieces_of
from ssd_lab.kernels.triton_ops.room import rows_with_room

BLOCK = 1024


@triton.jit
def _gated_silu(
    gate_up_ptr, out_ptr, size, piece, SPLITS: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr
):  # fmt: skip
    launch_next(PDL)
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < size
    wait_for_previous(PDL)
    line = gate_up_ptr + row * 2 * size
    gate = load_product(line + columns, inside, piece, SPLITS, out_ptr.dtype.element_ty)
    up = load_product(line + size + columns, inside, piece, SPLITS, out_ptr.dtype.element_ty)
    gated = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out_ptr + row * size + columns, gated.to(out_ptr.dtype.element_ty), mask=inside)


def gated_silu(gate_up: Product, *, pdl: bool = False) -> torch.Tensor:
    """See `Kernels.gated_silu`."""
    pieces, splits, dtype = pieces_of(gate_up)
    rows, size = pieces.shape[-2], pieces.shape[-1] // 2
    out = rows_with_room((rows, size), dtype, pieces.device)
    launch(
        _gated_silu, (rows, triton.cdiv(size, BLOCK)),
        pieces, out, size, rows * 2 * size, SPLITS=splits, BLOCK=BLOCK, num_warps=4, **pdl_options(pdl),
    )  # fmt: skip
    return out
