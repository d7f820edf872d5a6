"""Compiles every Triton kernel for a GPU that need not be there, down to its machine code; a program, run by a test.

The interpreter runs kernels as Python and takes much that the compiler does not. Launches are recorded on the CPU and
compiled instead: python compile_for_gpus.py CAPABILITY, such as 90.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon._runtime import GluonASTSource
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor as GluonDescriptor
from triton.runtime.jit import JITFunction
from triton.tools.tensor_descriptor import TensorDescriptor

from ssd_lab.decoding.decision import GreedyVerification
from ssd_lab.kernels.interface import HeadLayout
from ssd_lab.kernels.norm import RmsNorm
from ssd_lab.kernels.product import Partials
from ssd_lab.kernels.rope import RotaryTable
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.kernels.triton_ops.attention_tuning import AttentionTuning
from ssd_lab.kernels.triton_ops.few_rows import TritonFewRows
from ssd_lab.kernels.triton_ops.linear_tuning import LinearTuning as FewRowsTuning
from ssd_lab.kernels.triton_ops.peer_norm import add_rms_norm_over_ranks
from ssd_lab.kernels.triton_ops.peer_sums import Inboxes, gather_over_ranks, sum_over_ranks
from ssd_lab.kernels.triton_ops.triton_kernels import TritonKernels

POINTERS = {
    torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.int64: "*i64", torch.int32: "*i32",
    torch.bool: "*i1",
}  # fmt: skip


class Compiling:
    """Takes the place of a launch."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)
        self.compiled: list[str] = []

    def launch(self, kernel: JITFunction, *args: Any, grid: tuple[int, ...], warmup: bool, **named: Any) -> None:
        bound = dict(zip(kernel.arg_names, args, strict=False))
        bound |= {name: value for name, value in named.items() if name in kernel.arg_names}
        options = {name: value for name, value in named.items() if name not in kernel.arg_names or name == "num_warps"}
        signature = {p.name: "constexpr" if p.is_constexpr else type_of(bound[p.name]) for p in kernel.params}
        constants = {name: bound[name] for name, kind in signature.items() if kind == "constexpr"}
        source = GluonASTSource if kernel.is_gluon() else ASTSource
        result = triton.compile(source(kernel, signature, constants), target=self._target, options=options)
        assert result.asm["cubin"]
        self.compiled.append(kernel.__name__)


def type_of(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return POINTERS[value.dtype]
    if isinstance(value, GluonDescriptor):
        return f"tensordesc<{POINTERS[value.base.dtype][1:]}{value.block_shape},{value.layout!r}>"
    if isinstance(value, TensorDescriptor):
        return f"tensordesc<{POINTERS[value.base.dtype][1:]}{value.block_shape}>"
    return "fp32" if isinstance(value, float) else "i32"


def launch_everything(dtype: torch.dtype, pdl: bool) -> None:
    heads = HeadLayout(8, 2, 64)
    norm, head_norm = RmsNorm(torch.ones(512, dtype=dtype), 1e-5), RmsNorm(torch.ones(64, dtype=dtype), 1e-5)
    hidden, cache = torch.zeros(2, 512, dtype=dtype), torch.zeros(64, 4, 64, dtype=dtype)
    table = RotaryTable(64, 1e4, None, 64, torch.device("cpu"))
    row = torch.zeros(1, 2, dtype=torch.int64)
    for ancestors in (None, torch.zeros(1, 2, 3, dtype=torch.int64)):
        step = StepInput(row, row, row, torch.zeros(1, 40, dtype=torch.int64), row, 600, ancestors)
        # of full size what a GPU runs most; the other ways are the same code with splits that compile four times faster
        early, short = AttentionTuning(early=True, gathered=True, direct=True), AttentionTuning(split=32)
        for tuning in (
            *(AttentionTuning(), replace(short, programs=1), replace(short, direct=True)),
            *(early, replace(short, programs=1, early=True), replace(short, early=True, gathered=True)),
        ):
            kernels = TritonKernels(tuning, pdl=pdl)
            plan = kernels.plan(step, 16, heads, table, dtype)
            kernels.attention(hidden.view(2, 8, 64), cache, plan)
    kernels.rope_and_write(torch.zeros(2, 12 * 64, dtype=dtype), cache, plan)
    kernels.rope_and_write(torch.zeros(2, 12 * 64, dtype=dtype), cache, plan, head_norm, head_norm)
    kernels.add_rms_norm(hidden, hidden, norm)
    kernels.add_rms_norm(hidden, None, norm)
    kernels.gated_silu(hidden)
    kernels.greedy_pick(hidden, want_probs=True)
    weight = torch.zeros(64, 512, dtype=dtype)
    sums = Partials(torch.zeros(3, 2, 768), dtype)
    kernels.rope_and_write(sums, cache, plan)
    kernels.gated_silu(sums)
    kernels.add_rms_norm(hidden, Partials(torch.zeros(3, 2, 512), dtype), norm)
    for few_rows_tuning in (
        FewRowsTuning(tma=pdl),
        FewRowsTuning(tma=False),
        FewRowsTuning(tma=pdl, split_k=2),
    ):
        few_rows = TritonFewRows(weight, weight[:, 0], few_rows_tuning, pdl=pdl)
        if pdl:
            early = TritonFewRows(weight, weight[:, 0], few_rows_tuning, pdl=pdl, early=True)
            early(hidden)
            early.wide(hidden)
            early.gated(hidden)
        few_rows(hidden)
        for many in (100, 200):
            few_rows(torch.zeros(many, 512, dtype=dtype))
            few_rows.gated(torch.zeros(many, 512, dtype=dtype))
        few_rows.gated(hidden)
        few_rows.wide(hidden)
    inboxes = Inboxes(1, 4, row[0], row.int()[0], row.int()[0], 1000, pdl=pdl)
    for product in (hidden, sums, torch.zeros(64, 8192, dtype=dtype)):
        sum_over_ranks(product, inboxes)
    gather_over_ranks(row.int(), inboxes)
    for product in (hidden, Partials(torch.zeros(3, 2, 512), dtype)):
        add_rms_norm_over_ranks(hidden, product, norm.weight, norm.eps, inboxes)
    probs, drafts, uniforms = torch.zeros(2, 5, 3000), torch.zeros(2, 4, dtype=torch.int64), torch.zeros(2, 5)
    kernels.sample(probs[:, 0], uniforms[:, 0])
    kernels.accept_greedy(torch.zeros(2, 5, dtype=torch.int64), drafts, row[0])
    chosen, numbers = drafts.new_zeros(2, 5), uniforms
    kernels.causal_places(row[0], 5, row.new_zeros(2, 40), 16)
    for token_probs in (None, uniforms[:, 1:]):
        outcome = kernels.accept_greedy(chosen, drafts, row[0])
        kernels.greedy_decision(
            GreedyVerification(outcome, probs, chosen, numbers, drafts, token_probs, row[0], row[0])
        )
    candidates = kernels.recovery_candidates(probs, drafts, 64)
    forked = kernels.fork(candidates, chosen, 6, probs)
    kernels.fork(candidates, chosen, 6, probs, chosen, numbers)
    for counts in (None, chosen):
        kernels.find_branch(forked.keys, chosen[:, :2], counts)
    for draft_probs in (None, probs[:, 1:]):
        kernels.accept_sampled(probs, drafts, draft_probs, row[0], uniforms[:, 1:], uniforms)


if __name__ == "__main__":
    compiling = Compiling(int(sys.argv[1]))
    JITFunction.run = lambda kernel, *args, **named: compiling.launch(kernel, *args, **named)  # type: ignore[method-assign]
    launch_everything(torch.bfloat16, pdl=int(sys.argv[1]) >= 90)
    sys.stdout.write(f"compiled {len(compiling.compiled)}: {' '.join(sorted(set(compiling.compiled)))}\n")
