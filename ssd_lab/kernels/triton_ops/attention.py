"""Paged attention over a prefix and tree ancestors, cut along the keys; reference: `kernels.attention`.

Flash decoding (Dao et al. 2023, after arXiv 2205.14135), changed so that a row's bits depend on its keys alone:

* A row's keys form one logical sequence: key j is cache position j below its prefix length and its next ancestor from
  there on. Splits are cut at multiples of SPLIT of j, wherever the row stands and whatever is computed with it. So a
  row of a tree has the bits of the same tokens laid out as a chain.
* Sums over a split's keys are made by the matrix units, one chain in steps of 16, in every shape of product alike: how
  many rows share a product changes no bits.
* Softmax is scaled by whole powers of two. A split's reference is its largest score (in units of log 2) rounded up;
  rescaling from one reference to another is then exact, and adding the splits in order gives the same bits whether one
  program adds them as it goes or another does so later.

Query heads that share a K/V head, and rows of one sequence, share the product: R rows * group heads <= LANES.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssd_lab.kernels.triton_ops.launching import product, start_after_previous, wait_for_previous
from ssd_lab.kernels.triton_ops.split_sums import add_split, combined, store_output, store_split


@triton.jit
def _read(
    cache_ptr,
    slots,
    loaded,
    kv_head,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    CACHE: tl.constexpr,
):
    """Keys and values of one split `[SPLIT, BLOCK_DIM]` at cache slots `[SPLIT]`, zeros where not `loaded`."""
    dims = tl.arange(0, BLOCK_DIM)
    mask = loaded[:, None]
    if HEAD_DIM < BLOCK_DIM:
        mask = mask & (dims < HEAD_DIM)[None, :]
    key_ptrs = cache_ptr + (slots * (2 * NUM_KV_HEADS * HEAD_DIM) + kv_head * HEAD_DIM)[:, None] + dims[None, :]
    keys = tl.load(key_ptrs, mask=mask, other=0.0, cache_modifier=CACHE)
    values = tl.load(key_ptrs + NUM_KV_HEADS * HEAD_DIM, mask=mask, other=0.0, cache_modifier=CACHE)
    return keys, values


@triton.jit
def _attend(query, keys, values, visible, scale, INTERPRETED: tl.constexpr):
    """One split: reference exponent `[M]`, sum of weights `[M]`, weighted values `[M, BLOCK_DIM]`.

    visible `[M, SPLIT]`. Where nothing is visible: -inf, 0, 0. The weights are summed as the values are, by a product,
    whose order is the same for any M; a reduction's follows from how the tile lies in the threads.
    """
    scores = tl.where(visible, product(query, tl.trans(keys), INTERPRETED) * scale, float("-inf"))
    reference = tl.ceil(tl.max(scores, 1))
    base = tl.where(reference == float("-inf"), 0.0, reference)
    weights = tl.exp2(scores - base[:, None]).to(values.dtype)
    ones = tl.full([values.shape[0], 8], 1.0, tl.float32).to(values.dtype)
    total = tl.max(product(weights, ones, INTERPRETED), 1)  # 8 times the same
    return reference, total, product(weights, values, INTERPRETED)


@triton.jit
def _slots(table_ptr, positions, loaded, BLOCK_SIZE: tl.constexpr, CACHE: tl.constexpr):
    """Cache slots of positions, through a sequence's block table."""
    blocks = tl.load(table_ptr + positions // BLOCK_SIZE, mask=loaded, other=0, cache_modifier=CACHE).to(tl.int64)
    return blocks * BLOCK_SIZE + positions % BLOCK_SIZE


RUNTIME_NUMBERS = ["rows", "max_splits", "depth", "table_stride", "prefix_stride", "ancestor_stride", "depth_stride"]


@triton.jit(do_not_specialize=RUNTIME_NUMBERS)
def attend_splits(
    query_ptr,
    cache_ptr,
    table_ptr,
    prefix_ptr,
    ancestor_ptr,
    reference_ptr,
    total_ptr,
    summed_ptr,
    counter_ptr,
    out_ptr,
    scale,
    rows,
    max_splits,
    depth,
    table_stride,
    prefix_stride,
    ancestor_stride,
    depth_stride,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    SPLIT: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    LANES: tl.constexpr,
    HAS_ANCESTORS: tl.constexpr,
    WHOLE: tl.constexpr,
    FUSED: tl.constexpr,
    UNROLL: tl.constexpr,
    GATHERED: tl.constexpr,
    EARLY: tl.constexpr,
    DIRECT: tl.constexpr,
    INTERPRETED: tl.constexpr,
    PDL: tl.constexpr,
):
    """Splits p, p + programs, p + 2 * programs, ... of a tile of rows, of one sequence and K/V head.

    WHOLE: one program does all splits and writes the output. FUSED: the last program of a tile adds what all left.
    EARLY: what the kernel ahead does not write is read before it has ended, around the first cache: that may hold
    lines of an older step.
    Grid: (sequence * tiles + tile, K/V head, p).
    """
    GROUP: tl.constexpr = NUM_HEADS // NUM_KV_HEADS
    tiles = tl.cdiv(rows, TILE_ROWS)
    sequence = (tl.program_id(0) // tiles).to(tl.int64)
    first_row = (tl.program_id(0) % tiles) * TILE_ROWS
    kv_head = tl.program_id(1)
    program = tl.program_id(2)
    programs = tl.num_programs(2)
    lanes = tl.arange(0, LANES)
    lane_row = lanes // GROUP
    row = first_row + lane_row
    valid = (lane_row < TILE_ROWS) & (row < rows)
    head_index = (sequence * rows + row) * NUM_HEADS + kv_head * GROUP + lanes % GROUP
    AHEAD: tl.constexpr = ".cg" if EARLY else ""
    if not EARLY:
        start_after_previous(PDL)

    prefix_ptr += sequence * prefix_stride
    prefix = tl.load(prefix_ptr + row, mask=valid, other=0, cache_modifier=AHEAD).to(tl.int64)
    longest = tl.max(prefix, 0)
    num_splits = tl.minimum(tl.cdiv(longest + depth, SPLIT), max_splits).to(tl.int32)
    common = num_splits  # splits whose keys are the same positions for every row of the tile
    shortest = tl.min(tl.where(valid, prefix, longest), 0)
    if HAS_ANCESTORS:
        common = tl.minimum(shortest // SPLIT, num_splits).to(tl.int32)
    active = tl.maximum(tl.minimum(num_splits, programs), 1)
    if program >= active:
        if EARLY:
            start_after_previous(PDL)
        return

    table_ptr += sequence * table_stride
    first_split = program
    if EARLY:  # a sequence's rows of this step are its last `rows` positions: what lies before them is settled
        if (program + 1) * SPLIT > shortest - rows:
            wait_for_previous(PDL)
        early_positions = program * SPLIT + tl.arange(0, SPLIT)
        early_loaded = (early_positions < longest) & (program < common)
        early_slots = _slots(table_ptr, early_positions, early_loaded, BLOCK_SIZE, AHEAD)
        early_visible = early_positions[None, :] < prefix[:, None]
        early_keys, early_values = _read(
            cache_ptr, early_slots, early_loaded, kv_head, NUM_KV_HEADS, HEAD_DIM, BLOCK_DIM, AHEAD
        )
        start_after_previous(PDL)
        first_split += programs

    dims = tl.arange(0, BLOCK_DIM)
    query = tl.load(
        query_ptr + head_index[:, None] * HEAD_DIM + dims[None, :],
        mask=valid[:, None] & (dims < HEAD_DIM)[None, :],
        other=0.0,
    )
    first_partial = head_index * max_splits
    best = tl.full([LANES], float("-inf"), tl.float32)
    total = tl.zeros([LANES], tl.float32)
    summed = tl.zeros([LANES, BLOCK_DIM], tl.float32)

    if EARLY:  # noqa: SIM102 - decided by the compiler, and not by the device
        if program < common:
            reference, split_total, split_summed = _attend(
                query, early_keys, early_values, early_visible, scale, INTERPRETED
            )
            if WHOLE:
                best, total, summed = add_split(best, total, summed, reference, split_total, split_summed)
            else:
                store_split(
                    reference_ptr, total_ptr, summed_ptr, first_partial + program, valid,
                    reference, split_total, split_summed, HEAD_DIM, BLOCK_DIM, DIRECT,
                )  # fmt: skip

    for split in range(first_split, common, programs):
        positions = split * SPLIT + tl.arange(0, SPLIT)
        loaded = positions < longest
        slots = _slots(table_ptr, positions, loaded, BLOCK_SIZE, "")
        visible = positions[None, :] < prefix[:, None]
        keys, values = _read(cache_ptr, slots, loaded, kv_head, NUM_KV_HEADS, HEAD_DIM, BLOCK_DIM, "")
        reference, split_total, split_summed = _attend(query, keys, values, visible, scale, INTERPRETED)
        if WHOLE:
            best, total, summed = add_split(best, total, summed, reference, split_total, split_summed)
        else:
            store_split(
                reference_ptr, total_ptr, summed_ptr, first_partial + split, valid,
                reference, split_total, split_summed, HEAD_DIM, BLOCK_DIM, DIRECT,
            )  # fmt: skip

    if HAS_ANCESTORS:
        done = tl.cdiv(tl.maximum(common - program, 0), programs)
        for split in range(program + done * programs, num_splits, programs):
            keys = split * SPLIT + tl.arange(0, SPLIT)
            reference = tl.full([LANES], float("-inf"), tl.float32)
            split_total = tl.zeros([LANES], tl.float32)
            split_summed = tl.zeros([LANES, BLOCK_DIM], tl.float32)
            for tile_row in range(TILE_ROWS):
                exists = first_row + tile_row < rows
                own_prefix = tl.load(prefix_ptr + first_row + tile_row, mask=exists, other=0).to(tl.int64)
                if exists & (split * SPLIT < own_prefix + depth):
                    own = keys - own_prefix
                    line = ancestor_ptr + sequence * ancestor_stride + (first_row + tile_row) * depth_stride
                    ancestors = tl.load(line + own, mask=(own >= 0) & (own < depth), other=-1).to(tl.int64)
                    positions = tl.where(own < 0, keys, ancestors)
                    loaded = positions >= 0
                    slots = _slots(table_ptr, positions, loaded, BLOCK_SIZE, "")
                    mine = valid & (lane_row == tile_row)
                    visible = mine[:, None] & loaded[None, :]
                    row_keys, row_values = _read(
                        cache_ptr, slots, loaded, kv_head, NUM_KV_HEADS, HEAD_DIM, BLOCK_DIM, ""
                    )
                    row_reference, row_total, row_summed = _attend(
                        query, row_keys, row_values, visible, scale, INTERPRETED
                    )
                    reference = tl.where(mine, row_reference, reference)
                    split_total = tl.where(mine, row_total, split_total)
                    split_summed = tl.where(mine[:, None], row_summed, split_summed)
            if WHOLE:
                best, total, summed = add_split(best, total, summed, reference, split_total, split_summed)
            else:
                store_split(
                    reference_ptr, total_ptr, summed_ptr, first_partial + split, valid,
                    reference, split_total, split_summed, HEAD_DIM, BLOCK_DIM, DIRECT,
                )  # fmt: skip

    if WHOLE:
        store_output(out_ptr, head_index, valid, total, summed, HEAD_DIM, BLOCK_DIM)
    elif FUSED:
        counter = counter_ptr + tl.program_id(0) * NUM_KV_HEADS + kv_head
        tl.debug_barrier()  # every thread's results are stored before one of them says so
        arrived = tl.atomic_add(counter, 1, sem="acq_rel")
        if arrived == active - 1:
            tl.store(counter, 0)  # for the next layer
            total, summed = combined(
                reference_ptr, total_ptr, summed_ptr, first_partial, valid, num_splits,
                HEAD_DIM, BLOCK_DIM, UNROLL, GATHERED,
            )  # fmt: skip
            store_output(out_ptr, head_index, valid, total, summed, HEAD_DIM, BLOCK_DIM)
