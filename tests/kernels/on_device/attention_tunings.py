"""Ways of cutting attention that must not show in its result."""

from __future__ import annotations

from dataclasses import replace

import torch
from kernel_cases import BLOCK, AttentionCase, attention_in_float64, rotary_table, within_budget

from ssd_lab.kernels.attention import paged_attention, plan_attention
from ssd_lab.kernels.interface import HeadLayout, Kernels
from ssd_lab.kernels.triton_ops.attention_tuning import TREES, AttentionTuning

SMALL = HeadLayout(4, 1, 32)
ONE_PROGRAM = AttentionTuning(programs=1)
MANY_PROGRAMS = AttentionTuning(programs=10**6, unroll=2)
SOME_PROGRAMS = AttentionTuning(programs=12, unroll=4)
GATHERED = AttentionTuning(programs=10**6, unroll=4, gathered=True, combine_warps=4)
EARLY = AttentionTuning(programs=10**6, early=True, num_stages=1)
EARLY_SOME = replace(TREES, programs=12, unroll=8)
EARLY_ONE = AttentionTuning(programs=1, early=True)
MANY_LANES = AttentionTuning(lanes=64, programs=12, num_stages=1)
WIDE_EARLY = replace(EARLY_SOME, lanes=32)
READING_EARLY = [EARLY, EARLY_SOME, EARLY_ONE, WIDE_EARLY]
TUNINGS = [
    ONE_PROGRAM,
    MANY_PROGRAMS,
    SOME_PROGRAMS,
    GATHERED,
    MANY_LANES,
    *READING_EARLY,
]
# Other splits: other sums, and again the same whoever makes them
OTHER_SPLITS = [
    [replace(tuning, split=split, float32_split=split // 4) for tuning in (ONE_PROGRAM, GATHERED, EARLY_SOME)]
    for split in (64, 256)
]


def attend(kernels: Kernels, case: AttentionCase, device: torch.device, context: int | None = None) -> torch.Tensor:
    """`[batch, rows, heads * head_dim]`."""
    moved = case.to(device)
    dtype = case.queries.dtype
    plan = kernels.plan(moved.step(context), BLOCK, case.heads, rotary_table(case.heads.head_dim, device), dtype)
    result = kernels.attention(moved.flat_queries(), moved.cache, plan)
    return result.view(*case.queries.shape[:2], -1)


def budgeted(result: torch.Tensor, case: AttentionCase) -> None:
    """Within the error that plain torch makes in the same dtype."""
    plan = plan_attention(case.step(), BLOCK, case.heads.group, case.queries.dtype)
    clean = case.cache.clone()
    clean[:BLOCK] = 0  # the torch version multiplies what it reads from the dump by zero
    reference = paged_attention(case.flat_queries(), clean, plan)
    expected = attention_in_float64(case)
    seen = expected.abs().sum(-1) > 0  # where a row sees nothing the torch version gives any numbers
    within_budget(result.flatten(0, 1).cpu()[seen], expected[seen], reference[seen])
