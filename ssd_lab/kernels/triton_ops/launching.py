"""What all kernels share: their launch, programmatic dependent launch, exact products, and whether Triton's interpreter
runs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import triton
import triton.language as tl


@triton.jit
def launch_next(PDL: tl.constexpr):
    """With programmatic dependent launch: let the next kernel begin once all programs of this one have come here.

    It waits for this kernel's end before it reads or writes, so this may well stand before `wait_for_previous`.
    """
    if PDL:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def wait_for_previous(PDL: tl.constexpr):
    """With programmatic dependent launch a kernel begins before the one ahead of it ends: wait for its results here.

    Before this nothing may be written, and only weights read and what was there before the forward: its older kernels
    may still run. Its first, the lookup of the embeddings, is torch's and begins when all before it have ended. Every
    program passes here, also one that has nothing to do, so that whoever waits for this kernel has waited for those
    before it too.
    """
    if PDL:
        tl.extra.cuda.gdc_wait()


@triton.jit
def start_after_previous(PDL: tl.constexpr):
    """`wait_for_previous`, then `launch_next`."""
    wait_for_previous(PDL)
    launch_next(PDL)


@triton.jit
def product(left, right, INTERPRETED: tl.constexpr):
    """Matrix product with float32 sums; float32 operands are not cut to tf32."""
    if INTERPRETED:  # its product of bfloat16 would multiply bit patterns
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    return tl.dot(left, right, input_precision="ieee")


_COMPILES_ONLY: ContextVar[bool] = ContextVar("compiles_only", default=False)


@contextmanager
def only_compiled() -> Iterator[None]:
    """Within, in this thread, a launch compiles its kernel and runs nothing: tensors need no memory (`meta`)."""
    before = _COMPILES_ONLY.set(True)
    try:
        yield
    finally:
        _COMPILES_ONLY.reset(before)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """`kernel[grid](...)`, or within `only_compiled` what it needs of the compiler."""
    if _COMPILES_ONLY.get():
        kernel.warmup(*arguments, grid=grid, **options)
    else:
        kernel[grid](*arguments, **options)


def is_interpreted() -> bool:
    """Were these kernels made for Triton's interpreter (`TRITON_INTERPRET=1` when triton was imported)?"""
    return not isinstance(start_after_previous, triton.runtime.JITFunction)


def pdl_options(pdl: bool) -> dict[str, Any]:
    """Launch arguments for or against programmatic dependent launch; the interpreter knows none."""
    return {"PDL": True, "launch_pdl": True} if pdl and not is_interpreted() else {"PDL": False}
