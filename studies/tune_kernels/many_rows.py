"""Times products of many rows over every tile: `python -m studies.tune_kernels.many_rows --out FILE.json`.

Each is followed by who reads it (the norm, or nothing where the kernel activates it itself), since pieces of a sum cost
their reader time; and checked to have the bits of few rows.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ssd_lab.kernels.product import Product, whole
from ssd_lab.kernels.triton_ops.activation import gated_silu
from ssd_lab.kernels.triton_ops.few_rows import TritonFewRows
from ssd_lab.kernels.triton_ops.linear_tuning import MEASURED, MORE, LinearTuning, Tile
from ssd_lab.kernels.triton_ops.norm import add_rms_norm
from studies.tune_kernels.compiling import CompileAhead
from studies.tune_kernels.graph_timing import graph_us
from studies.tune_kernels.linear import CASES
from studies.tune_kernels.product_timing import ProductCase

ROWS = (80, 128, 240, 384, 512, 1024, 2048)
CALLS = 4
PIECES = [Tile(64, 64, 128, 5, 4), Tile(64, 128, 64, 4, 4), Tile(128, 64, 128, 4, 4), Tile(128, 128, 64, 6, 8)]
PIECES += [Tile(128, 128, 64, 3, 8), Tile(128, 256, 64, 4, 8), Tile(64, 256, 64, 4, 8)]
WHOLE = [Tile(64, 64, 128, 3, 4), Tile(64, 128, 64, 4, 4), Tile(64, 128, 64, 8, 4), Tile(64, 128, 128, 4, 4)]
WHOLE += [Tile(128, 64, 128, 4, 4), Tile(128, 128, 64, 3, 8), Tile(128, 128, 64, 6, 8), Tile(128, 128, 64, 3, 4)]
WHOLE += [Tile(128, 256, 64, 4, 8)]
GATED = [Tile(64, 64, 128, 3, 4), Tile(64, 128, 64, 4, 4), Tile(64, 128, 64, 3, 4), Tile(128, 128, 64, 4, 8)]
GATED += [Tile(64, 256, 64, 3, 8), Tile(64, 256, 64, 4, 8), Tile(128, 64, 64, 4, 8)]


def tiles_of(case: ProductCase) -> list[Tile]:
    """Those worth trying."""
    return GATED if case.mode == "gated" else [*PIECES, *(replace(tile, whole=True) for tile in WHOLE)]


@dataclass(frozen=True)
class TileBuild:
    """One kernel to compile."""

    case: ProductCase
    tile: Tile

    @property
    def tuning(self) -> LinearTuning:
        """The shape's, with this tile for any number of many rows."""
        tiles = ((MORE, self.tile),)
        tuning = MEASURED[self.case.out_features, self.case.in_features]
        return replace(tuning, gated=tiles) if self.case.mode == "gated" else replace(tuning, many=tiles)


def product_of(case: ProductCase, kernel: TritonFewRows, rows: torch.Tensor) -> Product:
    """As a decoder asks for it."""
    gated = kernel.gated(rows) if case.mode == "gated" else None
    return kernel(rows) if gated is None else gated


def compile_one(build: TileBuild) -> None:
    """In a process of its own: leaves the kernel in Triton's cache on the disk."""
    case = build.case
    weight = torch.zeros(case.out_features, case.in_features, dtype=torch.bfloat16, device="cuda")
    product_of(case, TritonFewRows(weight, None, build.tuning), weight[:512].contiguous())
    torch.cuda.synchronize()


def times_of(case: ProductCase, weights: list[torch.Tensor], count: int, search: CompileAhead[TileBuild]) -> Any:
    """Microseconds of every tile that compiles and of the library, the fastest first, at so many rows."""
    rows = torch.randn(count, case.in_features, device="cuda", dtype=torch.bfloat16)
    hidden = torch.randn(count, case.out_features, device="cuda", dtype=torch.bfloat16)
    norm = torch.ones(case.out_features, device="cuda", dtype=torch.bfloat16)

    def read(product: Product) -> Any:
        return product if case.mode == "gated" else add_rms_norm(hidden, product, norm, 1e-5)

    def library(number: int) -> Any:
        plain = F.linear(rows, weights[number % len(weights)])
        return read(gated_silu(plain) if case.mode == "gated" else plain)

    few = TritonFewRows(weights[0], None, MEASURED[case.out_features, case.in_features])
    expected = torch.cat([whole(product_of(case, few, part)) for part in rows.split(16)])
    found = [{"us": graph_us(library, CALLS), "tile": "library"}]
    for tile in tiles_of(case):
        build = TileBuild(case, tile)
        if not search.ready(build):
            continue
        kernels = [TritonFewRows(weight, None, build.tuning) for weight in weights]

        def ours(number: int, kernels: list[TritonFewRows] = kernels) -> Any:
            return read(product_of(case, kernels[number % len(kernels)], rows))

        same = torch.equal(whole(product_of(case, kernels[0], rows)), expected)
        found.append({"us": graph_us(ours, CALLS), "tile": asdict(tile), "same_bits": same})
    return sorted(found, key=lambda entry: entry["us"])


def main() -> None:
    """Time, print the best, write everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget-s", type=float, default=300.0)
    parser.add_argument("--workers", type=int, default=14)
    options = parser.parse_args()
    cases = [case for case in CASES if case.mode != "wide"]
    results: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cases": {}}
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool, torch.inference_mode():
        search = CompileAhead(pool, compile_one, options.budget_s)
        search.ahead([TileBuild(case, tile) for case in cases for tile in tiles_of(case)])
        for case in cases:
            with case.weights() as weights:
                by_rows = {count: times_of(case, weights, count, search) for count in ROWS}
            results["cases"][case.name] = by_rows
            for count, found in by_rows.items():
                best = ", ".join(f"{entry['us']:.1f} {entry['tile']}" for entry in found[:3])
                sys.stdout.write(f"{case.name} {count} rows: {best}\n")
            options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
