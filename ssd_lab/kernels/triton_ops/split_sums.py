"""What the splits of a row's keys leave, and their sum: exact rescaling, one order whoever adds."""

from __future__ import annotations

import triton
import triton.language as tl

from ssd_lab.kernels.triton_ops.launching import start_after_previous


@triton.jit
def store_split(
    reference_ptr,
    total_ptr,
    summed_ptr,
    index,
    valid,
    reference,
    total,
    summed,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Leave a split's result for whoever adds the splits; index `[M]`."""
    dims = tl.arange(0, BLOCK_DIM)
    tl.store(reference_ptr + index, reference, mask=valid)
    tl.store(total_ptr + index, total, mask=valid)
    mask = valid[:, None] & (dims < HEAD_DIM)[None, :]
    tl.store(summed_ptr + index[:, None] * HEAD_DIM + dims[None, :], summed, mask=mask)


@triton.jit
def add_split(best, total, summed, reference, split_total, split_summed):
    """The sum so far and the next split, both over the larger reference: both scalings are exact."""
    larger = tl.maximum(best, reference)
    base = tl.where(larger == float("-inf"), 0.0, larger)
    old, new = tl.exp2(best - base), tl.exp2(reference - base)
    total = total * old + split_total * new
    return larger, total, summed * old[:, None] + split_summed * new[:, None]


@triton.jit
def combined(
    reference_ptr,
    total_ptr,
    summed_ptr,
    first,
    valid,
    num_splits,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """Sum of weights `[M]` and weighted values `[M, BLOCK_DIM]` over the splits stored at `first` `[M]`, in order.

    Loads go around the first cache: another processor may have written the lines.
    """
    dims = tl.arange(0, BLOCK_DIM)
    steps = tl.arange(0, UNROLL)
    best = tl.full(first.shape, float("-inf"), tl.float32)
    for start in range(0, num_splits, UNROLL):
        inside = valid[:, None] & (start + steps < num_splits)[None, :]
        references = tl.load(
            reference_ptr + first[:, None] + (start + steps)[None, :],
            mask=inside,
            other=float("-inf"),
            cache_modifier=".cg",
        )
        best = tl.maximum(best, tl.max(references, 1))
    base = tl.where(best == float("-inf"), 0.0, best)
    total = tl.zeros(first.shape, tl.float32)
    summed = tl.zeros([first.shape[0], BLOCK_DIM], tl.float32)
    for start in range(0, num_splits, UNROLL):
        for step in tl.static_range(UNROLL):  # loads of several splits are under way at once; sums stay in order
            split = start + step
            here = valid & (split < num_splits)
            reference = tl.load(reference_ptr + first + split, mask=here, other=float("-inf"), cache_modifier=".cg")
            scale = tl.exp2(reference - base)
            total += tl.load(total_ptr + first + split, mask=here, other=0.0, cache_modifier=".cg") * scale
            split_summed = tl.load(
                summed_ptr + (first + split)[:, None] * HEAD_DIM + dims[None, :],
                mask=here[:, None] & (dims < HEAD_DIM)[None, :],
                other=0.0,
                cache_modifier=".cg",
            )
            summed += split_summed * scale[:, None]
    return total, summed


@triton.jit
def store_output(out_ptr, head_index, valid, total, summed, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    """Weighted values over the sum of weights, at heads `head_index` `[M]`; zeros where nothing was seen."""
    dims = tl.arange(0, BLOCK_DIM)
    out = summed / tl.where(total == 0.0, 1.0, total)[:, None]
    mask = valid[:, None] & (dims < HEAD_DIM)[None, :]
    tl.store(out_ptr + head_index[:, None] * HEAD_DIM + dims[None, :], out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows", "max_splits", "depth", "prefix_stride"])
def add_splits(
    prefix_ptr,
    reference_ptr,
    total_ptr,
    summed_ptr,
    out_ptr,
    rows,
    max_splits,
    depth,
    prefix_stride,
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    SPLIT: tl.constexpr,
    UNROLL: tl.constexpr,
    PDL: tl.constexpr,
):
    """Add the splits that `attend_splits` left, in order. Grid: (sequence * rows + row, head)."""
    index = tl.program_id(0).to(tl.int64)
    sequence, row = index // rows, index % rows
    head_index = index * NUM_HEADS + tl.program_id(1) + tl.arange(0, 1)
    valid = tl.full([1], 1, tl.int1)
    start_after_previous(PDL)
    num_keys = tl.load(prefix_ptr + sequence * prefix_stride + row).to(tl.int64) + depth
    num_splits = tl.minimum(tl.cdiv(num_keys, SPLIT), max_splits).to(tl.int32)
    total, summed = combined(
        reference_ptr, total_ptr, summed_ptr, head_index * max_splits, valid, num_splits, HEAD_DIM, BLOCK_DIM, UNROLL
    )
    store_output(out_ptr, head_index, valid, total, summed, HEAD_DIM, BLOCK_DIM)
