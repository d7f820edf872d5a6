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

Query heads that share a K/V head, and rows of one sequence, share the product: R rows * group heads <= LANES. Splits
with keys of a row's own (a tree's ancestors) are shared with no other row.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssd_lab.kernels.triton_ops.launching import launch_next, product, wait_for_previous
from ssd_lab.kernels.triton_ops.split_sums import add_split, store_output, store_split


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


@triton.jit
def _row_slots(ancestor_ptr, table_ptr, keys, own_prefix, depth, BLOCK_SIZE: tl.constexpr, CACHE: tl.constexpr):
    """Cache slots `[SPLIT]` of one row's keys, the prefix and then its ancestors, and which of them there are."""
    own = keys - own_prefix
    ancestors = tl.load(ancestor_ptr + own, mask=(own >= 0) & (own < depth), other=-1, cache_modifier=CACHE)
    positions = tl.where(own < 0, keys, ancestors.to(tl.int64))
    loaded = positions >= 0
    return _slots(table_ptr, positions, loaded, BLOCK_SIZE, CACHE), loaded


@triton.jit
def _taken(valid, positions, prefix, split, SPLIT: tl.constexpr, HAS_ANCESTORS: tl.constexpr):
    """Lanes that take a split from the program of their tile, and what each sees of it.

    HAS_ANCESTORS: those in whose prefix all of it lies.
    """
    visible = positions[None, :] < prefix[:, None]
    if HAS_ANCESTORS:
        valid = valid & ((split + 1) * SPLIT <= prefix)
        visible = visible & valid[:, None]
    return valid, visible


@triton.jit
def _added(best, total, summed, reference, split_total, split_summed, taken):
    """The sum so far and the next split, in the lanes for which it is taken; the others stay as they are."""
    new_best, new_total, new_summed = add_split(best, total, summed, reference, split_total, split_summed)
    best, total = tl.where(taken, new_best, best), tl.where(taken, new_total, total)
    return best, total, tl.where(taken[:, None], new_summed, summed)


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
    EARLY: tl.constexpr,
    DIRECT: tl.constexpr,
    INTERPRETED: tl.constexpr,
    PDL: tl.constexpr,
):
    """Splits p, p + programs, p + 2 * programs, ... of a tile of rows, of one sequence and K/V head.

    WHOLE: one program does all splits and writes the output. HAS_ANCESTORS: those are the splits that lie in a row's
    prefix altogether; what is behind them is done by one further program for each row of the tile, or if WHOLE by the
    same one.
    EARLY: what the kernel ahead does not write is read before it has ended, around the first cache: that may hold
    lines of an older step.
    Grid: (sequence * tiles + tile, K/V head, p, then row of the tile).
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
    first_partial = head_index * max_splits
    dims = tl.arange(0, BLOCK_DIM)
    query_ptrs = query_ptr + head_index[:, None] * HEAD_DIM + dims[None, :]
    query_mask = valid[:, None] & (dims < HEAD_DIM)[None, :]
    keys_of_split = tl.arange(0, SPLIT)
    AHEAD: tl.constexpr = ".cg" if EARLY else ""
    launch_next(PDL)
    if not EARLY:
        wait_for_previous(PDL)
    prefix_ptr += sequence * prefix_stride
    table_ptr += sequence * table_stride
    ancestor_ptr += sequence * ancestor_stride + first_row * depth_stride

    if HAS_ANCESTORS and not WHOLE:
        programs -= TILE_ROWS
        if program >= programs:
            tile_row = program - programs
            if first_row + tile_row >= rows:
                if EARLY:
                    wait_for_previous(PDL)
                return
            own_prefix = tl.load(prefix_ptr + first_row + tile_row, cache_modifier=AHEAD).to(tl.int64)
            ancestor_ptr += tile_row * depth_stride
            first = (own_prefix // SPLIT).to(tl.int32)
            slots, loaded = _row_slots(
                ancestor_ptr, table_ptr, first * SPLIT + keys_of_split, own_prefix, depth, BLOCK_SIZE, AHEAD
            )
            if EARLY:
                wait_for_previous(PDL)
            query = tl.load(query_ptrs, mask=query_mask, other=0.0)
            mine = valid & (lane_row == tile_row)
            end = tl.minimum(tl.cdiv(own_prefix + depth, SPLIT), max_splits).to(tl.int32)
            keys, values = _read(cache_ptr, slots, loaded, kv_head, NUM_KV_HEADS, HEAD_DIM, BLOCK_DIM, "")
            visible = mine[:, None] & loaded[None, :]
            reference, split_total, split_summed = _attend(query, keys, values, visible, scale, INTERPRETED)
            store_split(
                reference_ptr, total_ptr, summed_ptr, first_partial + first, mine & (first < end),
                reference, split_total, split_summed, HEAD_DIM, BLOCK_DIM, DIRECT,
            )  # fmt: skip
            for split in tl.range(first + 1, end, num_stages=1):  # where its ancestors cross the end of a split
                slots, loaded = _row_slots(
                    ancestor_ptr, table_ptr, split * SPLIT + keys_of_split, own_prefix, depth, BLOCK_SIZE, ""
                )
                keys, values = _read(cache_ptr, slots, loaded, kv_head, NUM_KV_HEADS, HEAD_DIM, BLOCK_DIM, "")
                visible = mine[:, None] & loaded[None, :]
                reference, split_total, split_summed = _attend(query, keys, values, visible, scale, INTERPRETED)
                store_split(
                    reference_ptr, total_ptr, summed_ptr, first_partial + split, mine,
                    reference, split_total, split_summed, HEAD_DIM, BLOCK_DIM, DIRECT,
                )  # fmt: skip
            return

    prefix = tl.load(prefix_ptr + row, mask=valid, other=0, cache_modifier=AHEAD).to(tl.int64)
    longest = tl.max(prefix, 0)
    if HAS_ANCESTORS:
        num_splits = tl.minimum(longest // SPLIT, max_splits).to(tl.int32)
    else:
        num_splits = tl.minimum(tl.cdiv(longest, SPLIT), max_splits).to(tl.int32)
    if program >= tl.maximum(tl.minimum(num_splits, programs), 1 if WHOLE else 0):
        if EARLY:
            wait_for_previous(PDL)
        return

    first_split = program
    if EARLY:  # a sequence's rows of this step are its last `rows` positions: what lies before them is settled
        early_positions = program * SPLIT + keys_of_split
        early_loaded = (early_positions < longest) & (program < num_splits)
        early_slots = _slots(table_ptr, early_positions, early_loaded, BLOCK_SIZE, AHEAD)
        if (program + 1) * SPLIT > tl.min(tl.where(valid, prefix, longest), 0) - rows:
            wait_for_previous(PDL)
        early_keys, early_values = _read(
            cache_ptr, early_slots, early_loaded, kv_head, NUM_KV_HEADS, HEAD_DIM, BLOCK_DIM, AHEAD
        )
        wait_for_previous(PDL)
        first_split += programs

    query = tl.load(query_ptrs, mask=query_mask, other=0.0)
    best = tl.full([LANES], float("-inf"), tl.float32)
    total = tl.zeros([LANES], tl.float32)
    summed = tl.zeros([LANES, BLOCK_DIM], tl.float32)

    if EARLY:  # noqa: SIM102 - decided by the compiler, and not by the device
        if program < num_splits:
            taken, early_visible = _taken(valid, early_positions, prefix, program, SPLIT, HAS_ANCESTORS)
            reference, split_total, split_summed = _attend(
                query, early_keys, early_values, early_visible, scale, INTERPRETED
            )
            if WHOLE and HAS_ANCESTORS:
                best, total, summed = _added(best, total, summed, reference, split_total, split_summed, taken)
            elif WHOLE:
                best, total, summed = add_split(best, total, summed, reference, split_total, split_summed)
            else:
                store_split(
                    reference_ptr, total_ptr, summed_ptr, first_partial + program, taken,
                    reference, split_total, split_summed, HEAD_DIM, BLOCK_DIM, DIRECT,
                )  # fmt: skip

    for split in range(first_split, num_splits, programs):
        positions = split * SPLIT + keys_of_split
        loaded = positions < longest
        slots = _slots(table_ptr, positions, loaded, BLOCK_SIZE, "")
        taken, visible = _taken(valid, positions, prefix, split, SPLIT, HAS_ANCESTORS)
        keys, values = _read(cache_ptr, slots, loaded, kv_head, NUM_KV_HEADS, HEAD_DIM, BLOCK_DIM, "")
        reference, split_total, split_summed = _attend(query, keys, values, visible, scale, INTERPRETED)
        if WHOLE and HAS_ANCESTORS:
            best, total, summed = _added(best, total, summed, reference, split_total, split_summed, taken)
        elif WHOLE:
            best, total, summed = add_split(best, total, summed, reference, split_total, split_summed)
        else:
            store_split(
                reference_ptr, total_ptr, summed_ptr, first_partial + split, taken,
                reference, split_total, split_summed, HEAD_DIM, BLOCK_DIM, DIRECT,
            )  # fmt: skip

    if WHOLE:
        if HAS_ANCESTORS:
            for tile_row in range(tl.minimum(TILE_ROWS, rows - first_row)):
                own_prefix = tl.load(prefix_ptr + first_row + tile_row).to(tl.int64)
                mine = valid & (lane_row == tile_row)
                end = tl.minimum(tl.cdiv(own_prefix + depth, SPLIT), max_splits).to(tl.int32)
                for split in range((own_prefix // SPLIT).to(tl.int32), end):
                    slots, loaded = _row_slots(
                        ancestor_ptr + tile_row * depth_stride, table_ptr, split * SPLIT + keys_of_split,
                        own_prefix, depth, BLOCK_SIZE, "",
                    )  # fmt: skip
                    visible = mine[:, None] & loaded[None, :]
                    keys, values = _read(cache_ptr, slots, loaded, kv_head, NUM_KV_HEADS, HEAD_DIM, BLOCK_DIM, "")
                    reference, split_total, split_summed = _attend(query, keys, values, visible, scale, INTERPRETED)
                    best, total, summed = _added(best, total, summed, reference, split_total, split_summed, mine)
        store_output(out_ptr, head_index, valid, total, summed, HEAD_DIM, BLOCK_DIM)
