"""Products of few rows with a weight matrix, with what stands around them: `x W^T`, bound by reading W.

For up to 16 rows the product is one row of tiles on the matrix units. What may be fused with it: an RMS norm's scale
ahead of it, a residual behind it, or the gated activation of the MLP behind gate and up. Sums over the inputs run in
steps of BLOCK_K in order, parts of them (`split_k`) are added in order: a row's bits depend on the tuning and the shape
of W, and on no other row. Whether this is faster than the library is for a measurement to say.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from ssd_lab.errors import ConfigError
from ssd_lab.kernels.triton_ops.launching import is_interpreted, pdl_options, product, start_after_previous

MOST_ROWS = 16


@dataclass(frozen=True)
class LinearTuning:
    """Block sizes (powers of 2 of at least 16): outputs of a program, inputs of a step; parts that share a sum."""

    block_n: int = 32
    block_k: int = 256
    split_k: int = 1
    num_warps: int = 4
    num_stages: int = 4


@triton.jit
def _inputs(x_ptr, scale, norm_weight_ptr, rows, columns, size, SCALED: tl.constexpr, MOST_ROWS: tl.constexpr):
    """A step's inputs `[MOST_ROWS, BLOCK_K]`, normed on the way if asked for (rounded as a norm's result is)."""
    lanes = tl.arange(0, MOST_ROWS)
    inside = (lanes < rows)[:, None] & (columns < size)[None, :]
    x = tl.load(x_ptr + lanes[:, None] * size + columns[None, :], mask=inside, other=0.0)
    if SCALED:
        weight = tl.load(norm_weight_ptr + columns, mask=columns < size, other=0.0).to(tl.float32)
        x = (x.to(tl.float32) * scale[:, None] * weight[None, :]).to(x.dtype)
    return x


@triton.jit
def _weights(weight_ptr, first, outputs, columns, num_outputs, size):
    """A step's weights `[BLOCK_K, BLOCK_N]` of the outputs behind `first`; read once: they need not stay cached."""
    inside = (columns < size)[:, None] & (outputs < num_outputs)[None, :]
    offsets = (first + outputs).to(tl.int64)[None, :] * size + columns[:, None]
    return tl.load(weight_ptr + offsets, mask=inside, other=0.0, eviction_policy="evict_first")


@triton.jit
def _finished(first, second, residual_ptr, offsets, mask, GATED: tl.constexpr, HAS_RESIDUAL: tl.constexpr):
    """What follows the sums: the gated activation, or the residual's addition."""
    result = first
    if GATED:
        result = first / (1.0 + tl.exp(-first)) * second
    if HAS_RESIDUAL:
        residual = tl.load(residual_ptr + offsets, mask=mask, other=0.0)
        result = result.to(residual.dtype).to(tl.float32) + residual.to(tl.float32)  # rounded as two operations are
    return result


@triton.jit
def _skinny_linear(
    x_ptr, weight_ptr, scale_ptr, norm_weight_ptr, residual_ptr, out_ptr, part_ptr, rows, size, num_outputs,
    steps_of_part, SCALED: tl.constexpr, GATED: tl.constexpr, HAS_RESIDUAL: tl.constexpr, SPLIT_K: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, MOST_ROWS: tl.constexpr, INTERPRETED: tl.constexpr,
    PDL: tl.constexpr,
):  # fmt: skip
    """Grid: (outputs / BLOCK_N, parts of the sum). GATED: the weight holds gate, then up, `num_outputs` rows each."""
    outputs = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    part = tl.program_id(1)
    lanes = tl.arange(0, MOST_ROWS)
    start_after_previous(PDL)
    scale = tl.zeros([MOST_ROWS], tl.float32)
    if SCALED:
        scale = tl.load(scale_ptr + lanes, mask=lanes < rows, other=0.0)
    first = tl.zeros([MOST_ROWS, BLOCK_N], tl.float32)
    second = tl.zeros([MOST_ROWS, BLOCK_N], tl.float32)
    for step in range(part * steps_of_part, (part + 1) * steps_of_part):
        columns = step * BLOCK_K + tl.arange(0, BLOCK_K)
        x = _inputs(x_ptr, scale, norm_weight_ptr, rows, columns, size, SCALED, MOST_ROWS)
        first += product(x, _weights(weight_ptr, 0, outputs, columns, num_outputs, size), INTERPRETED)
        if GATED:
            up = _weights(weight_ptr, num_outputs, outputs, columns, num_outputs, size)
            second += product(x, up, INTERPRETED)
    mask = (lanes < rows)[:, None] & (outputs < num_outputs)[None, :]
    offsets = lanes[:, None] * num_outputs + outputs[None, :]
    if SPLIT_K == 1:
        result = _finished(first, second, residual_ptr, offsets, mask, GATED, HAS_RESIDUAL)
        tl.store(out_ptr + offsets, result.to(out_ptr.dtype.element_ty), mask=mask)
    else:
        count = rows * num_outputs
        tl.store(part_ptr + part * count + offsets, first, mask=mask)
        if GATED:
            tl.store(part_ptr + (SPLIT_K + part) * count + offsets, second, mask=mask)


@triton.jit
def _add_parts(
    part_ptr, residual_ptr, out_ptr, count, GATED: tl.constexpr, HAS_RESIDUAL: tl.constexpr, SPLIT_K: tl.constexpr,
    BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Add the parts of the sums, in order."""
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < count
    start_after_previous(PDL)
    first = tl.zeros([BLOCK], tl.float32)
    second = tl.zeros([BLOCK], tl.float32)
    for part in tl.static_range(SPLIT_K):
        first += tl.load(part_ptr + part * count + offsets, mask=mask, other=0.0)
        if GATED:
            second += tl.load(part_ptr + (SPLIT_K + part) * count + offsets, mask=mask, other=0.0)
    result = _finished(first, second, residual_ptr, offsets, mask, GATED, HAS_RESIDUAL)
    tl.store(out_ptr + offsets, result.to(out_ptr.dtype.element_ty), mask=mask)


def skinny_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    *,
    residual: torch.Tensor | None = None,
    gated: bool = False,
    norm_scale: torch.Tensor | None = None,
    norm_weight: torch.Tensor | None = None,
    tuning: LinearTuning | None = None,
    pdl: bool = False,
) -> torch.Tensor:
    """`x` `[n, in]`, n <= 16, times the transpose of `weight` `[out, in]`: `[n, out]`.

    residual `[n, out]` is added. gated: weight is gate, then up, `[2 * size, in]`, and the result silu(gate) * up
    `[n, size]`. norm_scale `[n]` (float32, one over the root mean square of each row) with norm_weight `[in]`: x is
    normed first. Raises ConfigError for more rows, and for gated with a residual.
    """
    tuning = tuning or LinearTuning()
    rows, size = x.shape
    if rows > MOST_ROWS:
        raise ConfigError(f"skinny_linear got {rows} rows: at most {MOST_ROWS} are allowed, take the library's product")
    if gated and residual is not None:
        raise ConfigError("skinny_linear got gated and a residual: one of them is allowed")
    x = x.contiguous()
    num_outputs = weight.shape[0] // (2 if gated else 1)
    out = x.new_empty(rows, num_outputs)
    steps = triton.cdiv(triton.cdiv(size, tuning.block_k), tuning.split_k)
    num_parts = tuning.split_k * (2 if gated else 1)
    is_split = tuning.split_k > 1
    parts = torch.empty(num_parts, rows, num_outputs, dtype=torch.float32, device=x.device) if is_split else out
    has_residual = residual is not None
    epilogue = {"GATED": gated, "HAS_RESIDUAL": has_residual, "SPLIT_K": tuning.split_k, **pdl_options(pdl)}
    added = residual.contiguous() if residual is not None else out
    _skinny_linear[(triton.cdiv(num_outputs, tuning.block_n), tuning.split_k)](
        x, weight, x if norm_scale is None else norm_scale, x if norm_weight is None else norm_weight, added, out,
        parts, rows, size, num_outputs, steps, SCALED=norm_scale is not None, BLOCK_N=tuning.block_n,
        BLOCK_K=tuning.block_k, MOST_ROWS=MOST_ROWS, INTERPRETED=is_interpreted(), num_warps=tuning.num_warps,
        num_stages=tuning.num_stages, **epilogue,
    )  # fmt: skip
    if is_split:
        _add_parts[(triton.cdiv(rows * num_outputs, 1024),)](
            parts, added, out, rows * num_outputs, BLOCK=1024, num_warps=4, **epilogue
        )
    return out
