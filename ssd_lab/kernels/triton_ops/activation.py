"""The gated activation of the MLP; reference: `kernels.activation`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ssd_lab.kernels.triton_ops.launching import pdl_options, start_after_previous

BLOCK = 1024


@triton.jit
def _gated_silu(gate_up_ptr, out_ptr, size, BLOCK: tl.constexpr, PDL: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < size
    start_after_previous(PDL)
    line = gate_up_ptr + row * 2 * size
    gate = tl.load(line + columns, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(line + size + columns, mask=inside, other=0.0).to(tl.float32)
    gated = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out_ptr + row * size + columns, gated.to(out_ptr.dtype.element_ty), mask=inside)


def gated_silu(gate_up: torch.Tensor, *, pdl: bool = False) -> torch.Tensor:
    """See `Kernels.gated_silu`."""
    gate_up = gate_up.contiguous()
    rows, size = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, size)
    _gated_silu[(rows, triton.cdiv(size, BLOCK))](gate_up, out, size, BLOCK=BLOCK, num_warps=4, **pdl_options(pdl))
    return out
