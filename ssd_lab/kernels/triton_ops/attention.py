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

from ssd_lab.kernels.triton_ops.launching import add_product, product, start_after_previous, wait_for_previous
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
def _scores(query, keys, visible, scale, INTERPRETED: tl.constexpr):
    """Scores `[M, KEYS]` in units of log 2; visible: `[M, KEYS]`, or what broadcasts to it."""
    return tl.where(visible, product(query, tl.trans(keys), INTERPRETED) * scale, float("-inf"))


@triton.jit
def _finite(reference):
    """The reference, 0 where nothing was visible."""
    return tl.where(reference == float("-inf"), 0.0, reference)


@triton.jit
def _weigh(scores, reference, values, INTERPRETED: tl.constexpr):
    """Weights, as the product that sums the values takes them: their sum `[M]`, and the weighted values.

    The weights are summed by the matrix units too, in an order that is the same for any M; a reduction's follows from
    how the tile lies in the threads.
    """
    weights = tl.exp2(scores - _finite(reference)[:, None]).to(values.dtype)
    ones = tl.full([values.shape[0], 8], 1.0, tl.float32).to(values.dtype)
    return product(weights, ones, INTERPRETED), product(weights, values, INTERPRETED)


@triton.jit
def _weigh_more(total, summed, scores, reference, values, INTERPRETED: tl.constexpr):
    """`_weigh`, with both chains of sums going on from what they are."""
    weights = tl.exp2(scores - _finite(reference)[:, None]).to(values.dtype)
    ones = tl.full([values.shape[0], 8], 1.0, tl.float32).to(values.dtype)
    return add_product(total, weights, ones, INTERPRETED), add_product(summed, weights, values, INTERPRETED)


@triton.jit
def _attend(query, keys, values, visible, scale, INTERPRETED: tl.constexpr):
    """One split: reference exponent `[M]`, sum of weights `[M]`, weighted values `[M, BLOCK_DIM]`.

    visible `[M, SPLIT]`. Where nothing is visible: -inf, 0, 0.
    """
    scores = _scores(query, keys, visible, scale, INTERPRETED)
    reference = tl.ceil(tl.max(scores, 1))
    total, summed = _weigh(scores, reference, values, INTERPRETED)
    return reference, tl.max(total, 1), summed  # the total is there 8 times


@triton.jit
def _own_keys(
    cache_ptr, table_ptr, prefix_ptr, line_ptr, rows, depth, depth_stride, first_row, first_key, last_key, kv_head,
    lane_row, NUM_KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    TILE_ROWS: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Keys first_key + 0 .. WINDOW - 1, but not from last_key on, of each row of the tile, side by side: keys, values
    `[TILE_ROWS * WINDOW, BLOCK_DIM]`, and which of them each lane sees.
    """
    column = tl.arange(0, TILE_ROWS * WINDOW)
    own_row = column // WINDOW
    key = first_key + column % WINDOW
    exists = (first_row + own_row < rows) & (key < last_key)
    own = key - tl.load(prefix_ptr + first_row + own_row, mask=exists, other=0).to(tl.int64)
    line = line_ptr + (first_row + own_row) * depth_stride
    ancestors = tl.load(line + own, mask=exists & (own >= 0) & (own < depth), other=-1).to(tl.int64)
    positions = tl.where(own < 0, key, ancestors)
    loaded = exists & (positions >= 0)
    slots = _slots(table_ptr, positions, loaded, BLOCK_SIZE, "")
    keys, values = _read(cache_ptr, slots, loaded, kv_head, NUM_KV_HEADS, HEAD_DIM, BLOCK_DIM, "")
    return keys, values, loaded[None, :] & (own_row[None, :] == lane_row[:, None])


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
    WINDOW: tl.constexpr,
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

    WINDOW: keys that are each row's own and stand side by side, a multiple of 16.
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
        # What every row sees alike is read once, up to a multiple of 16, where a step of the sums begins; from there on
        # each row's keys, which are few, stand side by side with the others', and go on with the same chains of sums.
        line_ptr = ancestor_ptr + sequence * ancestor_stride
        done = tl.cdiv(tl.maximum(common - program, 0), programs)
        for split in range(program + done * programs, num_splits, programs):
            first_own = tl.maximum(split * SPLIT, shortest // 16 * 16)
            last_own = tl.minimum((split + 1) * SPLIT, longest + depth)
            positions = split * SPLIT + tl.arange(0, SPLIT)
            shared = positions < first_own
            slots = _slots(table_ptr, positions, shared, BLOCK_SIZE, "")
            keys, values = _read(cache_ptr, slots, shared, kv_head, NUM_KV_HEADS, HEAD_DIM, BLOCK_DIM, "")
            scores = _scores(query, keys, shared[None, :], scale, INTERPRETED)
            own_keys, own_values, visible = _own_keys(
                cache_ptr, table_ptr, prefix_ptr, line_ptr, rows, depth, depth_stride, first_row, first_own, last_own,
                kv_head, lane_row, NUM_KV_HEADS, HEAD_DIM, BLOCK_DIM, BLOCK_SIZE, TILE_ROWS, WINDOW,
            )  # fmt: skip
            own_scores = _scores(query, own_keys, visible, scale, INTERPRETED)
            largest = tl.maximum(tl.max(scores, 1), tl.max(own_scores, 1))
            for further in range(first_own + WINDOW, last_own, WINDOW):
                more_keys, more_values, visible = _own_keys(
                    cache_ptr, table_ptr, prefix_ptr, line_ptr, rows, depth, depth_stride, first_row, further, last_own,
                    kv_head, lane_row, NUM_KV_HEADS, HEAD_DIM, BLOCK_DIM, BLOCK_SIZE, TILE_ROWS, WINDOW,
                )  # fmt: skip
                largest = tl.maximum(largest, tl.max(_scores(query, more_keys, visible, scale, INTERPRETED), 1))
            reference = tl.ceil(largest)
            totals, split_summed = _weigh(scores, reference, values, INTERPRETED)
            totals, split_summed = _weigh_more(totals, split_summed, own_scores, reference, own_values, INTERPRETED)
            for further in range(first_own + WINDOW, last_own, WINDOW):
                more_keys, more_values, visible = _own_keys(
                    cache_ptr, table_ptr, prefix_ptr, line_ptr, rows, depth, depth_stride, first_row, further, last_own,
                    kv_head, lane_row, NUM_KV_HEADS, HEAD_DIM, BLOCK_DIM, BLOCK_SIZE, TILE_ROWS, WINDOW,
                )  # fmt: skip
                more_scores = _scores(query, more_keys, visible, scale, INTERPRETED)
                totals, split_summed = _weigh_more(
                    totals, split_summed, more_scores, reference, more_values, INTERPRETED
                )
            split_total = tl.max(totals, 1)
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
