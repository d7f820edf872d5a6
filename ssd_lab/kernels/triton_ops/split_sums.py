"""What the splits of a row's keys leave, and their sum: exact rescaling, one order whoever adds."""

from __future__ import annotations

import triton
import triton.language as tl

from ssd_lab.kernels.triton_ops.launching import launch_next, wait_for_previous


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
    DIRECT: tl.constexpr,
):
    """Leave a split's result for whoever adds the splits; index `[M]`.

    DIRECT: values go from where the product left them, and take no shared memory to be put in order first.
    """
    dims = tl.arange(0, BLOCK_DIM)
    tl.store(reference_ptr + index, reference, mask=valid)
    tl.store(total_ptr + index, total, mask=valid)
    mask = valid[:, None] & (dims < HEAD_DIM)[None, :]
    pointers = summed_ptr + index[:, None] * HEAD_DIM + dims[None, :]
    if DIRECT:
        tl.inline_asm_elementwise(
            "{ .reg .pred p; setp.ne.s32 p, $3, 0; @p st.global.f32 [$1], $2; mov.b32 $0, 0; }",
            "=r,l,r,r",
            [pointers.to(tl.int64), summed, tl.broadcast_to(mask, summed.shape).to(tl.int32)],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
    else:
        tl.store(pointers, summed, mask=mask)


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
    GATHERED: tl.constexpr,
):
    """Sum of weights `[M]` and weighted values `[M, BLOCK_DIM]` over the splits stored at `first` `[M]`, in order."""
    if GATHERED:
        total, summed = _gathered(
            reference_ptr, total_ptr, summed_ptr, first, valid, num_splits, HEAD_DIM, BLOCK_DIM, UNROLL
        )
    else:
        total, summed = _in_two_passes(
            reference_ptr, total_ptr, summed_ptr, first, valid, num_splits, HEAD_DIM, BLOCK_DIM, UNROLL
        )
    return total, summed


@triton.jit
def _load_split(
    reference_ptr, total_ptr, summed_ptr, index, here, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr
):  # fmt: skip
    """A split's result at `index` `[M]`; -inf, 0, 0 if not `here`. Around the first cache, which may be old."""
    dims = tl.arange(0, BLOCK_DIM)
    reference = tl.load(reference_ptr + index, mask=here, other=float("-inf"), cache_modifier=".cg")
    total = tl.load(total_ptr + index, mask=here, other=0.0, cache_modifier=".cg")
    mask = here[:, None] & (dims < HEAD_DIM)[None, :]
    summed = tl.load(summed_ptr + index[:, None] * HEAD_DIM + dims[None, :], mask=mask, other=0.0, cache_modifier=".cg")
    return reference, total, summed


@triton.jit
def _gathered(
    reference_ptr, total_ptr, summed_ptr, first, valid, num_splits, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    UNROLL: tl.constexpr,
):  # fmt: skip
    """All loads of UNROLL splits, then their sum over the largest reference so far: one wait for the memory each."""
    best = tl.full(first.shape, float("-inf"), tl.float32)
    total = tl.zeros(first.shape, tl.float32)
    summed = tl.zeros([first.shape[0], BLOCK_DIM], tl.float32)
    for start in range(0, num_splits, UNROLL):
        splits = ()
        for step in tl.static_range(UNROLL):
            here = valid & (start + step < num_splits)
            splits = splits + (  # type: ignore[assignment]  # noqa: RUF005
                _load_split(
                    reference_ptr, total_ptr, summed_ptr, first + start + step, here, HEAD_DIM, BLOCK_DIM
                ),
            )  # fmt: skip
        larger = best
        for step in tl.static_range(UNROLL):
            larger = tl.maximum(larger, splits[step][0])
        base = tl.where(larger == float("-inf"), 0.0, larger)
        old = tl.exp2(best - base)  # exact, as every scaling here: a power of two
        total *= old
        summed *= old[:, None]
        for step in tl.static_range(UNROLL):
            scale = tl.exp2(splits[step][0] - base)
            total += splits[step][1] * scale
            summed += splits[step][2] * scale[:, None]
        best = larger
    return total, summed


@triton.jit
def _in_two_passes(
    reference_ptr, total_ptr, summed_ptr, first, valid, num_splits, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    UNROLL: tl.constexpr,
):  # fmt: skip
    """The largest reference of all splits, then the sum; the compiler says how many loads are under way at once."""
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
        for step in tl.static_range(UNROLL):
            here = valid & (start + step < num_splits)
            reference, split_total, split_summed = _load_split(
                reference_ptr, total_ptr, summed_ptr, first + start + step, here, HEAD_DIM, BLOCK_DIM
            )
            scale = tl.exp2(reference - base)
            total += split_total * scale
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
    GATHERED: tl.constexpr,
    EARLY: tl.constexpr,
    PDL: tl.constexpr,
):
    """Add the splits that `attend_splits` left, in order. EARLY: see there. Grid: (sequence * rows + row, head)."""
    index = tl.program_id(0).to(tl.int64)
    sequence, row = index // rows, index % rows
    head_index = index * NUM_HEADS + tl.program_id(1) + tl.arange(0, 1)
    valid = tl.full([1], 1, tl.int1)
    launch_next(PDL)
    if not EARLY:
        wait_for_previous(PDL)
    num_keys = tl.load(prefix_ptr + sequence * prefix_stride + row, cache_modifier=".cg").to(tl.int64) + depth
    if EARLY:
        wait_for_previous(PDL)
    num_splits = tl.minimum(tl.cdiv(num_keys, SPLIT), max_splits).to(tl.int32)
    total, summed = combined(
        reference_ptr, total_ptr, summed_ptr, head_index * max_splits, valid, num_splits,
        HEAD_DIM, BLOCK_DIM, UNROLL, GATHERED,
    )  # fmt: skip
    store_output(out_ptr, head_index, valid, total, summed, HEAD_DIM, BLOCK_DIM)
