"""Ways of cutting attention that must not show in its result."""

from __future__ import annotations

import torch
from kernel_cases import BLOCK, AttentionCase, rotary_table

from ssd_lab.kernels.interface import HeadLayout, Kernels
from ssd_lab.kernels.triton_ops.attention_plan import AttentionTuning

SMALL = HeadLayout(4, 1, 32)
ONE_PROGRAM = AttentionTuning(programs=1)
MANY_PROGRAMS = AttentionTuning(programs=10**6, unroll=2)
SOME_PROGRAMS = AttentionTuning(programs=12, unroll=4)
FUSED = AttentionTuning(programs=10**6, fused_splits=10**6, unroll=1)
FUSED_SOME = AttentionTuning(programs=12, fused_splits=10**6)
TUNINGS = [ONE_PROGRAM, MANY_PROGRAMS, SOME_PROGRAMS, FUSED, FUSED_SOME]


def attend(kernels: Kernels, case: AttentionCase, device: torch.device, context: int | None = None) -> torch.Tensor:
    """`[batch, rows, heads * head_dim]`."""
    moved = case.to(device)
    dtype = case.queries.dtype
    plan = kernels.plan(moved.step(context), BLOCK, case.heads, rotary_table(case.heads.head_dim, device), dtype)
    result = kernels.attention(moved.flat_queries(), moved.cache, plan)
    return result.view(*case.queries.shape[:2], -1)
