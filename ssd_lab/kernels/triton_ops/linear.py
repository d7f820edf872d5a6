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
) -> None:
    """Rows `[n, in]` times `weight` `[out, in]` into `out`; all are contiguous. tile: one of `tuning.tile`.

    out: `[n, out]` in any dtype (rounded to the weight's first), `[n, out / 2]` if gated, or `[split_k, n, out]` in
    float32 where a tile is not whole and split_k > 1.
    """
    count, in_features = rows.shape
    out_features = weight.shape[0]
    tma = tile.tma and uses_tma(weight)
    sources: tuple[Any, Any] = (rows, weight)
    if tma:
        sources = (
            TensorDescriptor.from_tensor(with_room(rows, tile.rows), [tile.rows, tile.block_k]),
            TensorDescriptor.from_tensor(weight, [tile.block_out, tile.block_k]),
        )
    columns = out_features // 2 if gated else out_features
    grid: tuple[int, ...] = (triton.cdiv(count, tile.rows), triton.cdiv(columns, tile.block_out))
    arguments = (*sources, weight, weight if bias is None else bias, out, count)
    steps = tuning.split_inputs(in_features) // tile.block_k
    options = {
        "OUT": out_features,
        "IN": in_features,
        "ROWS": tile.rows,
        "BLOCK_OUT": tile.block_out,
        "BLOCK_K": tile.block_k,
        "SPLIT_K": tuning.split_k,
        "STEPS": steps,
        "STAGES": tile.stages,
        "HAS_BIAS": bias is not None,
        "TMA": tma,
        "INTERPRETED": is_interpreted(),
        "num_warps": tile.num_warps,
        **pdl_options(pdl),
    }
    kernel = whole_product
    if not tile.whole:
        kernel, grid = split_product, (*grid, tuning.split_k)
        options["GATED"] = gated
        even = steps * tile.block_k * tuning.split_k == in_features
        options["AHEAD"] = tile.ahead if tma and even and tile.ahead <= steps else 0
    launch(kernel, grid, *arguments, **options)
