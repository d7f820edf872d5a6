"""Launches of products with a weight: which kernel, over which tiles."""

from __future__ import annotations

from typing import Any

import torch
import triton
from triton.tools.tensor_descriptor import TensorDescriptor

from ssd_lab.kernels.triton_ops.launching import is_interpreted, launch, pdl_options
from ssd_lab.kernels.triton_ops.linear_kernels import split_product, whole_product
from ssd_lab.kernels.triton_ops.linear_tuning import LinearTuning, Tile
from ssd_lab.kernels.triton_ops.room import with_room


def uses_tma(weight: torch.Tensor) -> bool:
    """Can the copy engine of compute capability 9.0 fetch its tiles? It takes lines of whole 16 bytes only."""
    aligned = weight.shape[1] * weight.element_size() % 16 == 0 and weight.data_ptr() % 16 == 0
    able = weight.device.type != "cuda" or torch.cuda.get_device_capability(weight.device) >= (9, 0)
    return aligned and able


def run_product(
    rows: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    out: torch.Tensor,
    tuning: LinearTuning,
    tile: Tile,
    *,
    gated: bool = False,
    pdl: bool = False,
    early: bool = False,
) -> None:
    """Rows `[n, in]` times `weight` `[out, in]` into `out`; all are contiguous. tile: one of `tuning.tile`.

    out: `[n, out]` in any dtype (rounded to the weight's first), `[n, out / 2]` if gated, or `[split_k, n, out]` in
    float32 where a tile is not whole and split_k > 1. early: weights are fetched before the rows are there, if one
    tile holds those (`early_product`).
    """
    count, in_features = rows.shape
    out_features = weight.shape[0]
    tma = tile.tma and uses_tma(weight)
    columns = out_features // 2 if gated else out_features
    grid: tuple[int, ...] = (triton.cdiv(count, tile.rows), triton.cdiv(columns, tile.block_out))
    if not tile.whole:
        grid = (*grid, tuning.split_k)
    steps = tuning.split_inputs(in_features) // tile.block_k
    biased = weight if bias is None else bias
    options: dict[str, Any] = {
        "OUT": out_features,
        "SPLIT_K": tuning.split_k,
        "STEPS": steps,
        "STAGES": tile.stages,
        "HAS_BIAS": bias is not None,
        "num_warps": tile.num_warps,
        **pdl_options(pdl),
    }
    blocks = ([tile.rows, tile.block_k], [tile.block_out, tile.block_k])
    even = steps * tile.block_k * tuning.split_k == in_features
    fills = tile.block_out % (16 * tile.num_warps) == 0 and tile.stages >= min(2, steps)
    if early and tma and even and fills and grid[0] == 1 and not tile.whole and not is_interpreted():
        from ssd_lab.kernels.triton_ops.early_product import early_product, source_of  # takes a while, and newer Triton

        options |= {"STAGES": min(tile.stages, steps), "GATED": gated}
        roomy = with_room(rows, tile.rows)
        launch(
            early_product,
            grid,
            source_of(roomy, blocks[0]),
            source_of(weight, blocks[1]),
            biased,
            out,
            count,
            **options,
        )
        return
    sources: tuple[Any, Any] = (rows, weight)
    if tma:
        sources = (
            TensorDescriptor.from_tensor(with_room(rows, tile.rows), blocks[0]),
            TensorDescriptor.from_tensor(weight, blocks[1]),
        )
    options |= {
        "IN": in_features,
        "ROWS": tile.rows,
        "BLOCK_OUT": tile.block_out,
        "BLOCK_K": tile.block_k,
        "TMA": tma,
        "INTERPRETED": is_interpreted(),
    }
    if not tile.whole:
        options["GATED"] = gated
    launch(whole_product if tile.whole else split_product, grid, *sources, weight, biased, out, count, **options)
