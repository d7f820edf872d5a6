"""A forward's attention on the GPU: its cut, its working memory, and its launches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton

from ssd_lab.kernels.interface import Attention, HeadLayout
from ssd_lab.kernels.step_input import StepInput
from ssd_lab.kernels.triton_ops.attention import attend_splits
from ssd_lab.kernels.triton_ops.attention_tuning import (
    LANES,
    AttentionChoice,
    AttentionShape,
    AttentionTuning,
    measured_attention,
    rows_of_a_tile,
)
from ssd_lab.kernels.triton_ops.launching import is_interpreted, launch, pdl_options
from ssd_lab.kernels.triton_ops.room import rows_with_room
from ssd_lab.kernels.triton_ops.split_sums import add_splits


@dataclass(frozen=True)
class SplitAttentionPlan:
    """Made once per forward, shared by all layers.

    programs: how many programs share the splits of a tile. references, totals `[n * heads, max_splits]`, summed
    `[n * heads, max_splits, head_dim]`: what they leave, None where one program does all splits.
    """

    heads: HeadLayout
    block_size: int
    batch: int
    rows: int
    tile_rows: int
    lanes: int
    split: int
    max_splits: int
    programs: int
    tables: torch.Tensor
    prefix_lengths: torch.Tensor
    ancestors: torch.Tensor | None
    references: torch.Tensor | None
    totals: torch.Tensor | None
    summed: torch.Tensor | None
    tuning: AttentionTuning


def plan_split_attention(
    step: StepInput, block_size: int, heads: HeadLayout, dtype: torch.dtype, tuning: AttentionTuning
) -> SplitAttentionPlan:
    """Cut the work by the shapes and `context_length` alone: the device is not asked."""
    batch, rows = step.prefix_lengths.shape
    device = step.prefix_lengths.device
    lanes, tile_rows = tuning.lanes, rows_of_a_tile(heads, tuning.lanes)
    if step.ancestors is not None:
        lanes, tile_rows = LANES, min(rows_of_a_tile(heads), tuning.tree_tile_rows)
    tiles = batch * -(-rows // tile_rows) * heads.num_kv_heads
    split = tuning.float32_split if dtype == torch.float32 else tuning.split
    max_splits = max(1, -(-step.context_length // split))
    programs = min(max_splits, max(1, tuning.programs // tiles))
    num_partials = batch * rows * heads.num_heads * max_splits
    if num_partials * (heads.head_dim + 2) * 4 > tuning.partials_mib << 20:
        programs = 1
    references = totals = summed = None
    if programs > 1:
        references = torch.empty(num_partials, dtype=torch.float32, device=device)
        totals = torch.empty_like(references)
        summed = torch.empty(num_partials * heads.head_dim, dtype=torch.float32, device=device)
    return SplitAttentionPlan(
        heads=heads,
        block_size=block_size,
        batch=batch,
        rows=rows,
        tile_rows=tile_rows,
        lanes=max(lanes, triton.next_power_of_2(heads.group)),
        split=split,
        max_splits=max_splits,
        programs=programs,
        tables=_dense_lines(step.block_tables),
        prefix_lengths=_dense_lines(step.prefix_lengths),
        ancestors=None if step.ancestors is None else _dense_lines(step.ancestors),
        references=references,
        totals=totals,
        summed=summed,
        tuning=tuning,
    )


def _dense_lines(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself if its last dimension is dense: a slice of a longer run stays where it is."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def split_attention(
    queries: torch.Tensor, layer_cache: torch.Tensor, plan: SplitAttentionPlan, *, pdl: bool = False
) -> torch.Tensor:
    """Attention of `[batch * rows, heads, head_dim]`: see `Kernels.attention`. A row that sees nothing gives zeros."""
    queries = queries.contiguous()
    heads, tuning = plan.heads, plan.tuning
    out = rows_with_room((queries.shape[0], heads.num_heads * heads.head_dim), queries.dtype, queries.device)
    unused = out
    ancestors = plan.ancestors
    depth = 0 if ancestors is None else ancestors.shape[2]
    block_dim = max(16, triton.next_power_of_2(heads.head_dim))
    is_whole = plan.summed is None
    programs = plan.programs if is_whole or ancestors is None else plan.programs + plan.tile_rows
    grid = (plan.batch * -(-plan.rows // plan.tile_rows), heads.num_kv_heads, programs)
    launch(
        attend_splits,
        grid,
        queries,
        layer_cache,
        plan.tables,
        plan.prefix_lengths,
        plan.prefix_lengths if ancestors is None else ancestors,
        unused if plan.references is None else plan.references,
        unused if plan.totals is None else plan.totals,
        unused if plan.summed is None else plan.summed,
        out,
        math.log2(math.e) / math.sqrt(heads.head_dim),
        plan.rows,
        plan.max_splits,
        depth,
        plan.tables.stride(0),
        plan.prefix_lengths.stride(0),
        0 if ancestors is None else ancestors.stride(0),
        0 if ancestors is None else ancestors.stride(1),
        NUM_HEADS=heads.num_heads,
        NUM_KV_HEADS=heads.num_kv_heads,
        HEAD_DIM=heads.head_dim,
        BLOCK_DIM=block_dim,
        BLOCK_SIZE=plan.block_size,
        SPLIT=plan.split,
        TILE_ROWS=plan.tile_rows,
        LANES=plan.lanes,
        HAS_ANCESTORS=depth > 0,
        WHOLE=is_whole,
        EARLY=tuning.early,
        DIRECT=tuning.direct and not is_interpreted(),
        INTERPRETED=is_interpreted(),
        num_warps=tuning.num_warps,
        num_stages=tuning.num_stages,
        **pdl_options(pdl),
    )
    if not is_whole:
        launch(
            add_splits,
            (plan.batch * plan.rows, heads.num_heads),
            plan.prefix_lengths,
            plan.references,
            plan.totals,
            plan.summed,
            out,
            plan.rows,
            plan.max_splits,
            depth,
            plan.prefix_lengths.stride(0),
            NUM_HEADS=heads.num_heads,
            HEAD_DIM=heads.head_dim,
            BLOCK_DIM=block_dim,
            SPLIT=plan.split,
            UNROLL=tuning.unroll,
            GATHERED=tuning.gathered,
            EARLY=tuning.early,
            num_warps=tuning.combine_warps,
            **pdl_options(pdl),
        )
    return out


class SplitAttention(Attention):
    """`plan_split_attention` and `split_attention` with their tuning: one for everything, or by heads and tiles."""

    name = "triton"
    captures = True

    def __init__(self, tuning: AttentionTuning | AttentionChoice = measured_attention, *, pdl: bool = False) -> None:
        self._tuning, self._pdl = tuning, pdl

    def plan(self, step: StepInput, block_size: int, heads: HeadLayout, dtype: torch.dtype) -> SplitAttentionPlan:
        """See `Attention`."""
        tuning = self._tuning
        if not isinstance(tuning, AttentionTuning):
            batch, rows = step.prefix_lengths.shape
            tuning = tuning(AttentionShape(heads, batch, rows, step.context_length, step.ancestors is not None))
        return plan_split_attention(step, block_size, heads, dtype, tuning)

    def attend(self, queries: torch.Tensor, layer_cache: torch.Tensor, plan: SplitAttentionPlan) -> torch.Tensor:
        """See `Attention`."""
        return split_attention(queries, layer_cache, plan, pdl=self._pdl)
