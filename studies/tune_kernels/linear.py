"""Find how products of few rows are best cut on this GPU: `python -m studies.tune_kernels.linear --out FILE.json`.

Every candidate is timed at one row over copies of the weight that no cache holds; the best few are checked against
float64 and for row invariance, timed at more rows, and with programmatic dependent launch behind a norm, as in a
decoder. Compilation runs in other processes, ahead of the timing.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from triton.runtime.errors import OutOfResources

from ssd_lab.kernels.row_padding import LARGEST
from ssd_lab.kernels.triton_ops.launching import only_compiled
from ssd_lab.kernels.triton_ops.linear import run_product
from ssd_lab.kernels.triton_ops.linear_tuning import LinearTuning
from studies.tune_kernels.compiling import CompileAhead
from studies.tune_kernels.product_timing import ProductCase, library_us, product_us, worst_error

KEPT = 3  # candidates of a shape that are looked at closely
ROWS = (8, 24, 64, 112)
CHECKED_ROWS = (1, 2, 5, 16, 17, 33, 64, 100, LARGEST, 300)
RESIDENT = {200: 132, 100: 264, 72: 396}  # programs at once, by shared_kib

CASES = [
    ProductCase("8b.gate_up", 28672, 4096, "gated"),
    ProductCase("8b.down", 4096, 14336),
    ProductCase("8b.qkv", 6144, 4096),
    ProductCase("8b.output", 4096, 4096),
    ProductCase("8b.head", 128256, 4096, "wide"),
    ProductCase("1b.gate_up", 16384, 2048, "gated"),
    ProductCase("1b.down", 2048, 8192),
    ProductCase("1b.qkv", 3072, 2048),
    ProductCase("1b.output", 2048, 2048),
    ProductCase("1b.head", 128256, 2048, "wide"),
]


def candidates(case: ProductCase) -> list[LinearTuning]:
    """Cuts worth timing, the most promising first: all programs resident at once, or very many of them."""
    tiles = 2 if case.mode == "gated" else 1
    ranked: list[tuple[float, int, LinearTuning]] = []
    for block_out, num_warps in ((64, 4), (128, 4), (128, 8)):
        if tiles * block_out > 32 * num_warps:
            continue  # two tiles of sums would not fit the registers at 128 rows
        for split in (1,) if case.mode != "plain" else (1, 2, 3, 4, 6, 8):
            programs = -(-case.out_features // (tiles * block_out)) * split
            if case.in_features < split * 256 or (split > 1 and programs > 400):
                continue
            for shared, resident in RESIDENT.items():
                waves = programs / resident
                busy = waves / -(-programs // resident)  # part of the resident places that have work, over all waves
                for block_k in (64, 128, 256):
                    for tma in (True, False):
                        penalty = (not tma) * 0.1 + (shared == 72) * 0.15 + (block_out == 128) * 0.1
                        penalty += {64: 0.04, 128: 0.0, 256: 0.06}[block_k] + (num_warps == 8) * 0.05
                        tuning = LinearTuning(block_out, block_k, split, shared, num_warps, tma)
                        if tuning.tile(case.in_features, 16, gated=tiles == 2).block_k == block_k:
                            ranked.append((penalty - busy, len(ranked), tuning))
    return [tuning for _, _, tuning in sorted(ranked)]


@dataclass(frozen=True)
class ProductBuild:
    """One kernel to compile."""

    case: ProductCase
    tuning: LinearTuning
    rows: int
    pdl: bool = False


def compile_one(build: ProductBuild) -> None:
    """In a process of its own: leaves the kernel in Triton's cache on the disk."""
    case = build.case
    weight = torch.empty(1, case.in_features, dtype=torch.bfloat16, device="cuda").expand(case.out_features, -1)
    rows = torch.empty(build.rows, case.in_features, dtype=torch.bfloat16, device="cuda")
    out = case.output(build.rows, build.tuning.split_k, device="cuda")
    gated = case.mode == "gated"
    tile = build.tuning.tile(case.in_features, build.rows, gated=gated)
    with only_compiled():
        run_product(rows, weight, None, out, build.tuning, tile, gated=gated, pdl=build.pdl)


def first_pass(
    search: CompileAhead[ProductBuild], cases: list[ProductCase], most: int
) -> dict[str, list[tuple[float, LinearTuning]]]:
    """Times of candidates at one row, the fastest first; three fifths of the time, shared among the cases."""
    lists = {case.name: candidates(case)[:most] for case in cases}
    builds = [ProductBuild(case, tuning, 1) for case in cases for tuning in lists[case.name]]
    search.ahead(builds)
    search.ready(builds[0])  # processes take a while to start: no case should pay for it alone
    kept_s = 0.4 * search.left_s()
    timed: dict[str, list[tuple[float, LinearTuning]]] = {case.name: [] for case in cases}
    for number, case in enumerate(cases):
        end_s = search.left_s() - (search.left_s() - kept_s) / (len(cases) - number)
        with case.weights() as weights:
            for tuning in lists[case.name]:
                if search.left_s() < end_s:
                    break
                if search.ready(ProductBuild(case, tuning, 1)):
                    with suppress(OutOfResources):  # of shared memory or registers: not for this device
                        timed[case.name].append((product_us(case, weights, tuning, 1), tuning))
    search.forget_waiting()
    return {name: sorted(times, key=lambda pair: pair[0]) for name, times in timed.items()}


def look_closely(
    search: CompileAhead[ProductBuild], case: ProductCase, best: list[tuple[float, LinearTuning]]
) -> list[dict[str, Any]]:
    """Errors, invariance, more rows and dependent launch of the kept candidates; what the time allows."""
    found = []
    with case.weights() as weights:
        for place, (us, tuning) in enumerate(best):
            entry: dict[str, Any] = {"tuning": asdict(tuning), "us": {1: us}}
            if all(search.ready(ProductBuild(case, tuning, rows)) for rows in (1, 24, 64, 112)):  # one of each bucket
                entry["us"] |= {rows: product_us(case, weights, tuning, rows) for rows in ROWS}
                entry["error"], entry["invariant"] = worst_error(case, weights[0], tuning, CHECKED_ROWS)
            if place == 0:
                entry["behind_norm_us"] = {"no pdl": product_us(case, weights, tuning, 1, behind_norm=True)}
                if search.ready(ProductBuild(case, tuning, 1, pdl=True)):
                    entry["behind_norm_us"]["pdl"] = product_us(case, weights, tuning, 1, behind_norm=True, pdl=True)
            found.append(entry)
    return found


def report(case: ProductCase, library: dict[str, Any], found: list[dict[str, Any]]) -> str:
    """Lines of a table: us and TB/s at one row, us at more rows."""
    bytes_read = case.out_features * case.in_features * 2

    def line(name: str, us: dict[int, float], note: str) -> str:
        more = " ".join(f"{rows}:{value:.1f}" for rows, value in us.items() if rows > 1)
        return f"{case.name:11} {name:48} {us[1]:7.2f} us {bytes_read / us[1] / 1e6:5.2f} TB/s  {more}  {note}\n"

    text = line("library", library["us"], f"behind norm {library['behind_norm_us']:.2f}")
    for entry in found:
        tuning = entry["tuning"]
        name = " ".join(str(tuning[key]) for key in ("block_out", "block_k", "split_k", "shared_kib", "num_warps"))
        note = f"error {entry.get('error', float('nan')):.1e} invariant {entry.get('invariant')}"
        text += line(f"{name} {'tma' if tuning['tma'] else 'cp.async'}", entry["us"], note)
        for variant, us in entry.get("behind_norm_us", {}).items():
            text += f"{'':12}{variant:30} behind norm {us:7.2f} us\n"
    return text


def main() -> None:
    """Search, print a table, write everything that was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget-s", type=float, default=120.0)
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--most", type=int, default=32, help="candidates of a shape that are compiled and timed")
    parser.add_argument("--only", default="", help="cases whose name begins so: 8b, 1b.down")
    options = parser.parse_args()
    cases = [case for case in CASES if case.name.startswith(options.only)]
    results: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "cases": {}}
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool, torch.inference_mode():
        search = CompileAhead(pool, compile_one, options.budget_s)
        ranked = first_pass(search, cases, options.most)
        for case in cases:
            best = ranked[case.name][:KEPT]
            search.ahead([ProductBuild(case, tuning, rows) for _, tuning in best for rows in (24, 64, 112)])
            search.ahead([ProductBuild(case, tuning, 1, pdl=True) for _, tuning in best[:1]])
        for case in cases:
            with case.weights() as weights:
                library: dict[str, Any] = {"us": {rows: library_us(case, weights, rows) for rows in (1, *ROWS)}}
                library["behind_norm_us"] = library_us(case, weights, 1, behind_norm=True)
            found = look_closely(search, case, ranked[case.name][:KEPT])
            everything = [{"us": us, "tuning": asdict(tuning)} for us, tuning in ranked[case.name]]
            results["cases"][case.name] = {"library": library, "kept": found, "timed": everything}
            sys.stdout.write(report(case, library, found))
            sys.stdout.flush()
            options.out.write_text(json.dumps(results, indent=1))
        pool.shutdown(wait=False, cancel_futures=True)


if __name__ == "__main__":
    main()
