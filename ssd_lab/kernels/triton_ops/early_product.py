"""Products whose weights are fetched before the rows are there; the same as `linear_kernels.split_product`.

With programmatic dependent launch a kernel begins while the one ahead of it ends, and waits for its results. Weights
are no such results: a program first fills its shared memory with them, and then waits. So the memory goes on working
while one kernel ends and the next begins, which is most of a small model's step. Triton's loops fetch weights and rows
together; Gluon, the language below, says what is fetched when. The sums are the same instructions in the same order, so
no bit changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_init,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

DTYPES = {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16}


def source_of(matrix: torch.Tensor, block: Sequence[int]) -> TensorDescriptor:
    """What the copy engine fetches blocks of a matrix by, into shared memory as the tensor cores read it."""
    return TensorDescriptor.from_tensor(matrix, list(block), _layout(tuple(block), matrix.dtype))


@cache
def _layout(block: tuple[int, ...], dtype: torch.dtype) -> gl.NVMMASharedLayout:
    return gl.NVMMASharedLayout.get_default_for(list(block), DTYPES[dtype])


@gluon.jit
def _fetch_weights(source, first, start, weights, ups, ready, stage, COLUMNS: gl.constexpr, GATED: gl.constexpr):
    """A step's weights: outputs from `first`, and if GATED those of up, inputs from `start`."""
    tma.async_copy_global_to_shared(source, [first, start], ready.index(stage), weights.index(stage))
    if GATED:
        tma.async_copy_global_to_shared(source, [COLUMNS + first, start], ready.index(stage), ups.index(stage))


@gluon.jit
def _bias(bias_ptr, columns, COLUMNS: gl.constexpr):
    """A column of the bias for each result, in float32."""
    return gl.load(bias_ptr + columns, mask=columns < COLUMNS, other=0.0).to(gl.float32)[:, None]


@gluon.jit(do_not_specialize=["num_rows"])
def early_product(
    rows_source,
    weight_source,
    bias_ptr,
    out_ptr,
    num_rows,
    OUT: gl.constexpr,
    SPLIT_K: gl.constexpr,
    STEPS: gl.constexpr,
    STAGES: gl.constexpr,
    GATED: gl.constexpr,
    HAS_BIAS: gl.constexpr,
    PDL: gl.constexpr,
    num_warps: gl.constexpr,
):
    """Grid, sums and results of `split_product`; sources are descriptors of blocks, and all steps are whole.

    STAGES: steps in shared memory at once, at least 2 where there are more: a step makes room when the next begins.
    """
    BLOCK_OUT: gl.constexpr = weight_source.block_type.shape[0]
    BLOCK_K: gl.constexpr = weight_source.block_type.shape[1]
    ROWS: gl.constexpr = rows_source.block_type.shape[0]
    COLUMNS: gl.constexpr = OUT // 2 if GATED else OUT
    BYTES: gl.constexpr = (2 if GATED else 1) * weight_source.block_type.nbytes + rows_source.block_type.nbytes
    sums: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[num_warps, 1], instr_shape=[16, ROWS, 16]
    )
    if PDL:
        gl.inline_asm_elementwise(
            "griddepcontrol.launch_dependents; // dummy $0", "=r", [], dtype=gl.int32, is_pure=False, pack=1
        )
    first_row = gl.program_id(0) * ROWS
    first = gl.program_id(1) * BLOCK_OUT
    split = gl.program_id(2)
    first_in = split * (STEPS * BLOCK_K)
    weights = gl.allocate_shared_memory(weight_source.dtype, [STAGES, BLOCK_OUT, BLOCK_K], weight_source.layout)
    ups = weights
    if GATED:
        ups = gl.allocate_shared_memory(weight_source.dtype, [STAGES, BLOCK_OUT, BLOCK_K], weight_source.layout)
    rows = gl.allocate_shared_memory(rows_source.dtype, [STAGES, ROWS, BLOCK_K], rows_source.layout)
    ready = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(ready.index(stage), count=1)
    fence_async_shared()
    for stage in gl.static_range(STAGES):
        mbarrier.expect(ready.index(stage), BYTES)
        start = first_in + stage * BLOCK_K
        _fetch_weights(weight_source, first, start, weights, ups, ready, stage, COLUMNS, GATED)
    if PDL:
        gl.inline_asm_elementwise("griddepcontrol.wait; // dummy $0", "=r", [], dtype=gl.int32, is_pure=False, pack=1)
    for stage in gl.static_range(STAGES):
        start = first_in + stage * BLOCK_K
        tma.async_copy_global_to_shared(rows_source, [first_row, start], ready.index(stage), rows.index(stage))

    total = warpgroup_mma_init(gl.zeros([BLOCK_OUT, ROWS], gl.float32, sums))
    total_up = warpgroup_mma_init(gl.zeros([BLOCK_OUT, ROWS], gl.float32, sums))
    for step in range(STEPS):
        now = step % STAGES
        mbarrier.wait(ready.index(now), (step // STAGES) & 1)
        total = warpgroup_mma_wait(num_outstanding=0, deps=(total,))
        if GATED:
            total_up = warpgroup_mma_wait(num_outstanding=0, deps=(total_up,))
        if STEPS > STAGES:  # noqa: SIM102 - decided by the compiler, and not by the device
            if step > 0 and step - 1 + STAGES < STEPS:  # what the step before has read makes room
                free = (step - 1) % STAGES
                later = first_in + (step - 1 + STAGES) * BLOCK_K
                mbarrier.expect(ready.index(free), BYTES)
                _fetch_weights(weight_source, first, later, weights, ups, ready, free, COLUMNS, GATED)
                tma.async_copy_global_to_shared(rows_source, [first_row, later], ready.index(free), rows.index(free))
        inputs = rows.index(now).permute((1, 0))
        total = warpgroup_mma(weights.index(now), inputs, total, is_async=True)
        if GATED:
            total_up = warpgroup_mma(ups.index(now), inputs, total_up, is_async=True)

    result = warpgroup_mma_wait(num_outstanding=0, deps=(total,))
    columns = first + gl.arange(0, BLOCK_OUT, gl.SliceLayout(1, sums))
    row = first_row + gl.arange(0, ROWS, gl.SliceLayout(0, sums))
    inside = (columns < COLUMNS)[:, None] & (row < num_rows)[None, :]
    if HAS_BIAS:  # noqa: SIM102 - decided by the compiler, and not by the device
        if split == 0:
            result += _bias(bias_ptr, columns, COLUMNS)
    if SPLIT_K == 1:  # rounded as the product would be that another kernel reads
        result = result.to(weight_source.dtype).to(gl.float32)
        if GATED:
            up = warpgroup_mma_wait(num_outstanding=0, deps=(total_up,))
            if HAS_BIAS:
                up += _bias(bias_ptr + COLUMNS, columns, COLUMNS)
            result = result / (1.0 + gl.exp(-result)) * up.to(weight_source.dtype).to(gl.float32)
    line = (split * num_rows + row).to(gl.int64) * COLUMNS
    gl.store(out_ptr + line[None, :] + columns[:, None], result.to(out_ptr.dtype.element_ty), mask=inside)
