"""Products of few rows with a weight at the memory's speed; reference: `kernels.linear`.

The weight is the left operand, so its outputs fill the tall side of the tensor cores' product, and the rows, padded to
16, 32, 64 or 128, the other. A result is then one chain of sums over the inputs in steps of 16, from the first to the
last of its split, whatever the number of rows. More than 128 rows are several tiles of 128, whose programs follow each
other, so that the weight is read from memory once and by the others from the second cache.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from ssd_lab.kernels.triton_ops.launching import is_interpreted, launch_next, pdl_options, wait_for_previous
from ssd_lab.kernels.triton_ops.linear_tuning import ROW_BUCKETS, LinearTuning


@triton.jit
def _tile(
    source, first, start, last, IN: tl.constexpr, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr, EVEN_K: tl.constexpr,
    TMA: tl.constexpr,
):  # fmt: skip
    """Lines `first + 0 .. BLOCK - 1` of a matrix `[last + 1, IN]`, inputs `start + 0 .. BLOCK_K - 1`, zeros beyond IN.

    Lines beyond the last are zeros or repeat it: their results are not stored.
    """
    if TMA:
        tile = source.load([first, start])
    else:
        lines = tl.minimum(first + tl.arange(0, BLOCK), last).to(tl.int64)
        columns = start + tl.arange(0, BLOCK_K)
        pointers = source + lines[:, None] * IN + columns[None, :]
        inside = (columns < IN)[None, :]
        tile = tl.load(pointers) if EVEN_K else tl.load(pointers, mask=inside, other=0.0)
    return tile


@triton.jit
def _add_product(total, weights, rows, INTERPRETED: tl.constexpr):
    """total + weights x rows^T, in float32."""
    if INTERPRETED:  # its product of bfloat16 would multiply bit patterns
        weights = weights.to(tl.float32)
        rows = rows.to(tl.float32)
    return tl.dot(weights, tl.trans(rows), total, input_precision="ieee")


@triton.jit(do_not_specialize=["num_rows"])
def few_rows_product(
    rows_source,
    weight_source,
    weight_ptr,
    bias_ptr,
    out_ptr,
    num_rows,
    OUT: tl.constexpr,
    IN: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SPLIT_K: tl.constexpr,
    STEPS: tl.constexpr,
    STAGES: tl.constexpr,
    GATED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    TMA: tl.constexpr,
    INTERPRETED: tl.constexpr,
    PDL: tl.constexpr,
):
    """One tile of rows and of outputs over one split of the inputs; GATED: of gate and of up.

    Grid: (row tile, tile, split): programs that share weights are neighbours. OUT counts the lines of the weight; with
    GATED the result has half as many columns. Sources are pointers, or descriptors with TMA. SPLIT_K > 1: out is
    float32 `[SPLIT_K, rows, OUT]`.
    """
    COLUMNS: tl.constexpr = OUT // 2 if GATED else OUT
    EVEN_K: tl.constexpr = STEPS * BLOCK_K * SPLIT_K == IN
    first_row = tl.program_id(0) * ROWS
    first = tl.program_id(1) * BLOCK_OUT
    split = tl.program_id(2)
    first_in = split * (STEPS * BLOCK_K)
    launch_next(PDL)
    wait_for_previous(PDL)

    total = tl.zeros([BLOCK_OUT, ROWS], tl.float32)
    total_up = tl.zeros([BLOCK_OUT, ROWS], tl.float32)
    for step in tl.range(0, STEPS, num_stages=STAGES):
        start = first_in + step * BLOCK_K
        weights = _tile(weight_source, first, start, OUT - 1, IN, BLOCK_OUT, BLOCK_K, EVEN_K, TMA)
        rows = _tile(rows_source, first_row, start, num_rows - 1, IN, ROWS, BLOCK_K, EVEN_K, TMA)
        total = _add_product(total, weights, rows, INTERPRETED)
        if GATED:
            up = _tile(weight_source, COLUMNS + first, start, OUT - 1, IN, BLOCK_OUT, BLOCK_K, EVEN_K, TMA)
            total_up = _add_product(total_up, up, rows, INTERPRETED)

    columns = first + tl.arange(0, BLOCK_OUT)
    row = first_row + tl.arange(0, ROWS)
    inside = (columns < COLUMNS)[:, None] & (row < num_rows)[None, :]
    if HAS_BIAS:
        if split == 0:
            total += tl.load(bias_ptr + columns, mask=columns < COLUMNS, other=0.0).to(tl.float32)[:, None]
        if GATED:
            up_bias = tl.load(bias_ptr + COLUMNS + columns, mask=columns < COLUMNS, other=0.0)
            total_up += up_bias.to(tl.float32)[:, None]
    if SPLIT_K == 1:  # rounded as the product would be that another kernel reads
        total = total.to(weight_ptr.dtype.element_ty).to(tl.float32)
        if GATED:
            total_up = total_up.to(weight_ptr.dtype.element_ty).to(tl.float32)
            total = total / (1.0 + tl.exp(-total)) * total_up
    line = (split * num_rows + row).to(tl.int64) * COLUMNS
    tl.store(out_ptr + line[None, :] + columns[:, None], total.to(out_ptr.dtype.element_ty), mask=inside)


def padded_rows(count: int) -> int:
    """Columns of a tile for `count` rows: those of the largest bucket where they do not fit one."""
    return next((bucket for bucket in ROW_BUCKETS if bucket >= count), ROW_BUCKETS[-1])


def uses_tma(weight: torch.Tensor, tuning: LinearTuning) -> bool:
    """Does the copy engine fetch this weight's tiles? It takes lines of whole 16 bytes only."""
    aligned = weight.shape[1] * weight.element_size() % 16 == 0 and weight.data_ptr() % 16 == 0
    able = weight.device.type != "cuda" or torch.cuda.get_device_capability(weight.device) >= (9, 0)
    return tuning.tma and aligned and able


def run_product(
    rows: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    out: torch.Tensor,
    tuning: LinearTuning,
    *,
    gated: bool = False,
    pdl: bool = False,
    only_compile: bool = False,
) -> None:
    """Rows `[n, in]` times `weight` `[out, in]` into `out`; all are contiguous.

    out: `[n, out]` in any dtype (rounded to the weight's first), `[split_k, n, out]` in float32 for split_k > 1, or
    `[n, out / 2]` if gated. only_compile: leave out the launch.
    """
    count, in_features = rows.shape
    out_features = weight.shape[0]
    columns, tiles = (out_features // 2, 2) if gated else (out_features, 1)
    padded = padded_rows(count)
    block_k, steps, stages = tuning.pipeline(in_features, padded, tiles)
    tma = uses_tma(weight, tuning)
    sources: tuple[Any, Any] = (rows, weight)
    if tma:
        sources = (
            TensorDescriptor.from_tensor(rows, [padded, block_k]),
            TensorDescriptor.from_tensor(weight, [tuning.block_out, block_k]),
        )
    grid = (triton.cdiv(count, padded), triton.cdiv(columns, tuning.block_out), tuning.split_k)
    arguments = (*sources, weight, weight if bias is None else bias, out, count)
    options = {
        "OUT": out_features,
        "IN": in_features,
        "ROWS": padded,
        "BLOCK_OUT": tuning.block_out,
        "BLOCK_K": block_k,
        "SPLIT_K": tuning.split_k,
        "STEPS": steps,
        "STAGES": stages,
        "GATED": gated,
        "HAS_BIAS": bias is not None,
        "TMA": tma,
        "INTERPRETED": is_interpreted(),
        "num_warps": tuning.num_warps,
        **pdl_options(pdl),
    }
    if only_compile:
        few_rows_product.warmup(*arguments, grid=grid, **options)
    else:
        few_rows_product[grid](*arguments, **options)
