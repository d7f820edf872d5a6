"""A sum over ranks, the residual add and the RMS norm in one pass: see `peer_sums` and `norm`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ssd_lab.kernels.product import Product
from ssd_lab.kernels.triton_ops.launching import launch_next, pdl_options, wait_for_previous
from ssd_lab.kernels.triton_ops.partials import load_product, pieces_of
from ssd_lab.kernels.triton_ops.peer_sums import PROGRAMS, REGION, REGION_WORDS, Inboxes, reach, summed
from ssd_lab.kernels.triton_ops.room import rows_with_room

WORDS_PER_WARP, MOST_WARPS = 256, 16  # of a row
WIDEST = 2 * REGION  # numbers of a row


@triton.jit
def _add_rms_norm_over_ranks(
    hidden_ptr,
    product_ptr,
    weight_ptr,
    sum_ptr,
    normed_ptr,
    addresses_ptr,
    exchanges_ptr,
    state_ptr,
    tries,
    rows,
    size,
    eps,
    piece,
    RANK: tl.constexpr,
    SIZE: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    launch_next(PDL)
    dtype: tl.constexpr = sum_ptr.dtype.element_ty
    program = tl.program_id(0)
    low = tl.arange(0, BLOCK)  # a word holds a number of the row's first half and one of its second
    high = low + BLOCK
    weight_low = tl.load(weight_ptr + low, mask=low < size, other=0.0).to(tl.float32)
    weight_high = tl.load(weight_ptr + high, mask=high < size, other=0.0).to(tl.float32)
    place = program * REGION_WORDS + low
    wait_for_previous(PDL)
    exchange = tl.load(exchanges_ptr + 1 + program)
    for row in range(program, rows, tl.num_programs(0)):
        exchange += 1
        start = row * size
        own_low = load_product(product_ptr + start + low, low < size, piece, SPLITS, dtype)
        own_high = load_product(product_ptr + start + high, high < size, piece, SPLITS, dtype)
        hidden_low = tl.load(hidden_ptr + start + low, mask=low < size, other=0.0).to(tl.float32)
        hidden_high = tl.load(hidden_ptr + start + high, mask=high < size, other=0.0).to(tl.float32)
        total_low, total_high = summed(
            own_low,
            own_high,
            addresses_ptr,
            place,
            low < size,
            exchange,
            exchanges_ptr,
            state_ptr,
            tries,
            dtype,
            RANK,
            SIZE,
        )
        sum_low = (hidden_low + total_low.to(dtype).to(tl.float32)).to(dtype)
        sum_high = (hidden_high + total_high.to(dtype).to(tl.float32)).to(dtype)
        tl.store(sum_ptr + start + low, sum_low, mask=low < size)
        tl.store(sum_ptr + start + high, sum_high, mask=high < size)
        wide_low, wide_high = sum_low.to(tl.float32), sum_high.to(tl.float32)
        scale = 1.0 / tl.sqrt_rn(tl.sum(wide_low * wide_low + wide_high * wide_high, 0) / size + eps)
        tl.store(normed_ptr + start + low, (wide_low * scale * weight_low).to(dtype), mask=low < size)
        tl.store(normed_ptr + start + high, (wide_high * scale * weight_high).to(dtype), mask=high < size)
    tl.store(exchanges_ptr + 1 + program, exchange)


def add_rms_norm_over_ranks(
    hidden: torch.Tensor, product: Product, weight: torch.Tensor, eps: float, inboxes: Inboxes
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `Kernels.add_rms_norm`; the delta is every rank's product `[n, size]` of 16-bit numbers, size at most
    `WIDEST`. Its norm is summed in another order than that of `norm`, the same for every number of rows.
    """
    hidden = hidden.contiguous()
    own, splits, _ = pieces_of(product)
    rows, size = hidden.shape
    total, normed = torch.empty_like(hidden), rows_with_room(tuple(hidden.shape), hidden.dtype, hidden.device)
    block = triton.next_power_of_2(triton.cdiv(size, 2))
    if rows:
        _add_rms_norm_over_ranks[(min(rows, PROGRAMS),)](
            *(hidden, own, weight, total, normed, *reach(inboxes), rows, size, eps, hidden.numel()),
            RANK=inboxes.rank,
            SIZE=inboxes.size,
            SPLITS=splits,
            BLOCK=block,
            num_warps=min(MOST_WARPS, max(1, block // WORDS_PER_WARP)),
            **pdl_options(inboxes.pdl),
        )
    return total, normed
