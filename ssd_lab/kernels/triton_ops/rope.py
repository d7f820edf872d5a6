"""Head norms (Qwen3), rotation of q and k, and the writing of k and v into their pages, in one pass over q/k/v.

Reference: `kernels.norm`, `kernels.rope` and `kernels.attention.write_kv`. Everything between the reading of a head and
its writing is float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ssd_lab.kernels.interface import HeadLayout
from ssd_lab.kernels.norm import RmsNorm
from ssd_lab.kernels.product import Product
from ssd_lab.kernels.triton_ops.launching import launch, launch_next, pdl_options, wait_for_previous
from ssd_lab.kernels.triton_ops.partials import load_product, pieces_of

HEADS_PER_PROGRAM = 4


@triton.jit
def _norm_weight(query_norm_ptr, key_norm_ptr, dims, is_query, in_head):
    """The norm's weight of each head `[heads, dims]`."""
    query_weight = tl.load(query_norm_ptr + dims, mask=in_head, other=0.0).to(tl.float32)
    key_weight = tl.load(key_norm_ptr + dims, mask=in_head, other=0.0).to(tl.float32)
    return tl.where(is_query[:, None], query_weight[None, :], key_weight[None, :])


@triton.jit
def _rope_and_write(
    qkv_ptr,
    cos_ptr,
    sin_ptr,
    position_ptr,
    slot_ptr,
    cache_ptr,
    query_ptr,
    query_norm_ptr,
    key_norm_ptr,
    num_positions,
    query_eps,
    key_eps,
    piece,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    HEADS_PER_PROGRAM: tl.constexpr,
    HAS_NORMS: tl.constexpr,
    SPLITS: tl.constexpr,
    PDL: tl.constexpr,
):
    launch_next(PDL)
    row = tl.program_id(0).to(tl.int64)
    heads = tl.program_id(1) * HEADS_PER_PROGRAM + tl.arange(0, HEADS_PER_PROGRAM)
    dims = tl.arange(0, BLOCK_DIM)
    partners = tl.where(dims < HEAD_DIM // 2, dims + HEAD_DIM // 2, dims - HEAD_DIM // 2)
    in_head = dims < HEAD_DIM
    inside = (heads < NUM_HEADS + 2 * NUM_KV_HEADS)[:, None] & in_head[None, :]
    # as old as the step: see `wait_for_previous`
    position = tl.load(position_ptr + row, cache_modifier=".cg").to(tl.int64)
    position = tl.maximum(tl.minimum(position, num_positions - 1), 0)
    slot = tl.load(slot_ptr + row, cache_modifier=".cg").to(tl.int64)
    cos = tl.load(cos_ptr + position * HEAD_DIM + dims, mask=in_head, other=0.0)
    sin = tl.load(sin_ptr + position * HEAD_DIM + dims, mask=in_head, other=0.0)
    is_query = heads < NUM_HEADS
    is_rotated = heads < NUM_HEADS + NUM_KV_HEADS
    if HAS_NORMS:
        weight = _norm_weight(query_norm_ptr, key_norm_ptr, dims, is_query, in_head)
        swapped_weight = _norm_weight(query_norm_ptr, key_norm_ptr, partners, is_query, in_head)
    wait_for_previous(PDL)
    lines = qkv_ptr + row * (NUM_HEADS + 2 * NUM_KV_HEADS) * HEAD_DIM + heads[:, None] * HEAD_DIM
    values = load_product(lines + dims[None, :], inside, piece, SPLITS, query_ptr.dtype.element_ty)
    swapped = load_product(lines + partners[None, :], inside, piece, SPLITS, query_ptr.dtype.element_ty)
    rotating, rotating_swapped = values, swapped
    if HAS_NORMS:
        eps = tl.where(is_query, query_eps, key_eps)
        scale = 1.0 / tl.sqrt_rn(tl.sum(values * values, 1) / HEAD_DIM + eps)
        rotating = values * scale[:, None] * weight
        rotating_swapped = swapped * scale[:, None] * swapped_weight
    rotated = rotating * cos[None, :] + rotating_swapped * sin[None, :]
    result = tl.where(is_rotated[:, None], rotated, values)
    queries = query_ptr + row * NUM_HEADS * HEAD_DIM + heads[:, None] * HEAD_DIM + dims[None, :]
    tl.store(queries, result.to(query_ptr.dtype.element_ty), mask=inside & is_query[:, None])
    stored = cache_ptr + slot * (2 * NUM_KV_HEADS * HEAD_DIM) + (heads - NUM_HEADS)[:, None] * HEAD_DIM + dims[None, :]
    tl.store(stored, result.to(cache_ptr.dtype.element_ty), mask=inside & (heads >= NUM_HEADS)[:, None])


def rope_and_write(
    qkv: Product,
    cos: torch.Tensor,
    sin: torch.Tensor,
    positions: torch.Tensor,
    write_slots: torch.Tensor,
    layer_cache: torch.Tensor,
    heads: HeadLayout,
    query_norm: RmsNorm | None = None,
    key_norm: RmsNorm | None = None,
    *,
    pdl: bool = False,
) -> torch.Tensor:
    """Rotate, write, return the queries: see `Kernels.rope_and_write`.

    cos, sin `[positions, head_dim]`, float32: `RotaryTable`'s; a position outside takes the nearest. positions,
    write_slots `[n]`, int32 or int64, contiguous.
    """
    pieces, splits, dtype = pieces_of(qkv)
    rows = pieces.shape[-2]
    queries = torch.empty(rows, heads.num_heads, heads.head_dim, dtype=dtype, device=pieces.device)
    has_norms = query_norm is not None and key_norm is not None
    total = heads.num_heads + 2 * heads.num_kv_heads
    launch(
        _rope_and_write,
        (rows, triton.cdiv(total, HEADS_PER_PROGRAM)),
        pieces,
        cos,
        sin,
        positions,
        write_slots,
        layer_cache,
        queries,
        query_norm.weight if query_norm is not None else pieces,
        key_norm.weight if key_norm is not None else pieces,
        cos.shape[0],
        query_norm.eps if query_norm is not None else 0.0,
        key_norm.eps if key_norm is not None else 0.0,
        rows * total * heads.head_dim,
        NUM_HEADS=heads.num_heads,
        NUM_KV_HEADS=heads.num_kv_heads,
        HEAD_DIM=heads.head_dim,
        BLOCK_DIM=triton.next_power_of_2(heads.head_dim),
        HEADS_PER_PROGRAM=HEADS_PER_PROGRAM,
        HAS_NORMS=has_norms,
        SPLITS=splits,
        num_warps=4,
        **pdl_options(pdl),
    )
    return queries
