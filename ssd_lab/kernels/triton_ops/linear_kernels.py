"""Products of rows with a weight, few of them at the memory's speed and many at the tensor cores'; reference:
`kernels.linear`.

The weight is the left operand, so its outputs fill the tall side of the tensor cores' product, and the rows, padded to
a tile's, the other. A result is then one chain of sums over the inputs in steps of 16, from the first to the last of
its split, and splits are added in their order: whatever the number of rows, the tiles and who adds the splits.
Programs of one weight tile follow each other, so that the weight is read from memory once, and by the others from the
second cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssd_lab.kernels.triton_ops.launching import launch_next, wait_for_previous


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


@triton.jit
def _bias(bias_ptr, columns, COLUMNS: tl.constexpr):
    """A column of the bias for each result, in float32."""
    return tl.load(bias_ptr + columns, mask=columns < COLUMNS, other=0.0).to(tl.float32)[:, None]


@triton.jit(do_not_specialize=["num_rows"])
def split_product(
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
            total += _bias(bias_ptr, columns, COLUMNS)
        if GATED:
            total_up += _bias(bias_ptr + COLUMNS, columns, COLUMNS)
    if SPLIT_K == 1:  # rounded as the product would be that another kernel reads
        total = total.to(weight_ptr.dtype.element_ty).to(tl.float32)
        if GATED:
            total_up = total_up.to(weight_ptr.dtype.element_ty).to(tl.float32)
            total = total / (1.0 + tl.exp(-total)) * total_up
    line = (split * num_rows + row).to(tl.int64) * COLUMNS
    tl.store(out_ptr + line[None, :] + columns[:, None], total.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["num_rows"])
def whole_product(
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
    HAS_BIAS: tl.constexpr,
    TMA: tl.constexpr,
    INTERPRETED: tl.constexpr,
    PDL: tl.constexpr,
):
    """One tile of rows and of outputs over all splits, one after the other and added in their order, as who reads
    pieces adds them. One loop over all steps, so that the splits' tiles are fetched without a pause between them.

    Grid: (row tile, tile). Sources and BLOCK_K * STEPS as in `split_product`.
    """
    EVEN_K: tl.constexpr = STEPS * BLOCK_K * SPLIT_K == IN
    first_row = tl.program_id(0) * ROWS
    first = tl.program_id(1) * BLOCK_OUT
    columns = first + tl.arange(0, BLOCK_OUT)
    launch_next(PDL)
    wait_for_previous(PDL)

    total = tl.zeros([BLOCK_OUT, ROWS], tl.float32)
    split_total = tl.zeros([BLOCK_OUT, ROWS], tl.float32)
    for step in tl.range(0, STEPS * SPLIT_K, num_stages=STAGES):
        start = step * BLOCK_K
        weights = _tile(weight_source, first, start, OUT - 1, IN, BLOCK_OUT, BLOCK_K, EVEN_K, TMA)
        rows = _tile(rows_source, first_row, start, num_rows - 1, IN, ROWS, BLOCK_K, EVEN_K, TMA)
        split_total = _add_product(split_total, weights, rows, INTERPRETED)
        if SPLIT_K > 1:  # noqa: SIM102 - decided by the compiler, and not by the device
            if (step + 1) % STEPS == 0:
                if HAS_BIAS:  # noqa: SIM102 - the first split's, as in pieces
                    if step + 1 == STEPS:
                        split_total += _bias(bias_ptr, columns, OUT)
                total += split_total
                split_total = tl.zeros([BLOCK_OUT, ROWS], tl.float32)
    if SPLIT_K == 1:
        total = split_total
        if HAS_BIAS:
            total += _bias(bias_ptr, columns, OUT)

    row = first_row + tl.arange(0, ROWS)
    inside = (columns < OUT)[:, None] & (row < num_rows)[None, :]
    total = total.to(weight_ptr.dtype.element_ty)  # rounded as the product would be that another kernel reads
    line = row.to(tl.int64) * OUT
    tl.store(out_ptr + line[None, :] + columns[:, None], total.to(out_ptr.dtype.element_ty), mask=inside)
