"""Find how attention is best cut on this GPU: `python -m studies.tune_kernels.attention --out FILE.json`.

Every variant is timed at one row and at five, over keys and values that no cache holds, in a CUDA graph as in an
engine; the best of each size also at more rows, as branches of a tree, and behind the rotation that makes its queries.
Every variant is checked against float64 and for its bits. What is printed last goes into `attention_tuning` as it is.
Compilation runs in other processes, ahead of the timing.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from triton.runtime.errors import OutOfResources

from ssd_lab.kernels.interface import HeadLayout
from ssd_lab.kernels.triton_ops.attention_plan import plan_split_attention
from ssd_lab.kernels.triton_ops.attention_tuning import AttentionTuning
from ssd_lab.profile.timing import read_bandwidth
from studies.tune_kernels.attention_choice import DEFAULT, choose, measured_entry, name_of, table, written
from studies.tune_kernels.attention_timing import AttentionSize, attention_us, caches, check, run_once
from studies.tune_kernels.compiling import CompileAhead

LAYOUTS = {"8b": HeadLayout(32, 8, 128), "1b": HeadLayout(32, 8, 64)}
CONTEXTS = (8192, 2048, 512)
BATCHES = (1, 4, 16, 64)
ROWS = {"ONE_ROW": 1, "FEW_ROWS": 5}  # of each sequence, by where what is found goes
CHECKED_CONTEXT, CHECKED_ROWS = 1500, 24
KEPT = 2  # variants of a size that are timed in more ways, besides the default
WORST_ERROR = 1.25  # over plain torch's: beyond it a variant is not taken


def variants() -> list[AttentionTuning]:
    """Cuts worth timing, the default first; `attention_tuning` says what each is for."""
    gathered = replace(DEFAULT, gathered=True, unroll=16, combine_warps=4)
    early, direct = replace(gathered, early=True), replace(gathered, direct=True)
    fine, coarse = replace(gathered, split=64), replace(gathered, split=256, num_warps=8)
    wide = replace(gathered, num_warps=8)
    return [
        DEFAULT,
        gathered,
        replace(gathered, unroll=8, combine_warps=1),
        replace(gathered, unroll=32),
        *(replace(gathered, programs=programs) for programs in (132, 264, 396, 1056)),
        *(replace(gathered, programs=programs, num_stages=3) for programs in (264, 528)),
        replace(gathered, num_stages=1),
        early,
        *(replace(early, programs=programs) for programs in (264, 1056)),
        replace(early, num_stages=1),
        replace(early, lanes=32),
        replace(early, programs=264, lanes=32, direct=True, num_stages=1),
        replace(early, unroll=32),
        replace(early, programs=264, num_stages=3),
        *(replace(direct, programs=programs) for programs in (264, 396, 528, 1056)),
        *(replace(direct, programs=programs, num_stages=3) for programs in (396, 528)),
        *(replace(direct, programs=programs, early=True) for programs in (396, 528, 1056)),
        *(replace(direct, programs=programs, num_warps=8) for programs in (396, 528)),
        *(replace(wide, programs=programs) for programs in (264, 528)),
        *(replace(wide, early=True, num_stages=stages) for stages in (1, 2)),
        *(replace(fine, programs=programs) for programs in (396, 528, 1056)),
        replace(fine, early=True),
        *(replace(coarse, programs=programs) for programs in (132, 264)),
        replace(coarse, early=True, programs=264),
    ]


@dataclass(frozen=True)
class AttentionBuild:
    """What decides which kernels are compiled, and a size that launches them."""

    heads: HeadLayout
    tuning: AttentionTuning
    is_whole: bool
    tree: bool
    size: AttentionSize

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AttentionBuild) and self._key == other._key

    @property
    def _key(self) -> tuple[Any, ...]:
        return self.heads, self.tuning, self.is_whole, self.tree

    @classmethod
    def of(cls, size: AttentionSize, tuning: AttentionTuning) -> AttentionBuild:
        """Of this size; nothing is allocated."""
        plan = plan_split_attention(size.step("meta"), 16, size.heads, torch.bfloat16, tuning)
        # how many programs there are is no matter of the compiler's
        return cls(size.heads, replace(tuning, programs=0), plan.summed is None, size.tree, size)


def compile_one(build: AttentionBuild) -> None:
    """In a process of its own: leaves the kernels in Triton's cache on the disk."""
    with torch.inference_mode():
        programs = 1 if build.is_whole else 1 << 20
        run_once(build.size, replace(build.tuning, programs=programs), "cuda")
        torch.cuda.synchronize()


def timed(
    search: CompileAhead[AttentionBuild],
    sizes: list[AttentionSize],
    tunings: list[AttentionTuning],
    keep_s: float = 0.0,
) -> dict[AttentionSize, dict[AttentionTuning, float]]:
    """Microseconds of every variant, until `keep_s` seconds are left."""
    search.ahead([AttentionBuild.of(size, tuning) for size in sizes for tuning in tunings])
    found: dict[AttentionSize, dict[AttentionTuning, float]] = {}
    for size in sizes:
        if search.left_s() <= keep_s:
            break
        us: dict[AttentionTuning, float] = {}
        with caches(size) as made:
            for tuning in tunings:
                if search.ready(AttentionBuild.of(size, tuning)):
                    with suppress(OutOfResources):  # of shared memory or registers: not for this device
                        us[tuning] = attention_us(size, made, tuning)
        found[size] = us
        sys.stderr.write(f"{name_of(size)}: {len(us)} variants, {search.left_s():.0f} s left\n")
    return found


def checked(
    search: CompileAhead[AttentionBuild], heads: HeadLayout, tunings: list[AttentionTuning]
) -> dict[AttentionTuning, tuple[float, bool]]:
    """Error and bits of each variant that this device can run."""
    sizes = [AttentionSize(heads, 3, CHECKED_CONTEXT, CHECKED_ROWS, tree) for tree in (False, True)]
    sizes.append(AttentionSize(heads, 1, CHECKED_CONTEXT))
    search.ahead([AttentionBuild.of(size, tuning) for size in sizes for tuning in tunings])
    able = []
    for tuning in tunings:
        if all(search.ready(AttentionBuild.of(size, tuning)) for size in sizes):
            with suppress(OutOfResources):
                for size in sizes:
                    run_once(size, tuning, "cuda")
                able.append(tuning)
    return dict(zip(able, check(able, heads, CHECKED_CONTEXT, CHECKED_ROWS), strict=True))


def more_ways(
    search: CompileAhead[AttentionBuild], found: dict[AttentionSize, dict[AttentionTuning, float]]
) -> list[dict[str, Any]]:
    """The default and the best few of each size: 8 rows, 24 branches of a tree, and behind the rotation."""
    entries = []
    for size, us in found.items():
        best = sorted(us, key=us.__getitem__)[:KEPT]
        asked = [replace(size, rows=8), replace(size, rows=24, tree=True)]
        for tuning in dict.fromkeys([DEFAULT, *best]):
            if tuning not in us:
                continue
            entry: dict[str, Any] = {"size": name_of(size), "tuning": asdict(tuning), "us": {"1": us[tuning]}}
            for more in asked:
                if search.ready(AttentionBuild.of(more, tuning)):
                    with suppress(OutOfResources), caches(more) as made:
                        entry["us"]["24 tree" if more.tree else str(more.rows)] = attention_us(more, made, tuning)
            if search.left_s() > 0:
                with caches(size) as made:
                    entry["us"]["behind rope"] = attention_us(size, made, tuning, behind_rope=True)
            entries.append(entry)
    return entries


def main() -> None:
    """Measure, print tables, write everything that was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budget-s", type=float, default=400.0)
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--only", default="", choices=["", *LAYOUTS], help="one geometry alone")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("attention is tuned on a CUDA device, and torch sees none here")
    layouts = {name: heads for name, heads in LAYOUTS.items() if name.startswith(options.only)}
    bandwidth = read_bandwidth(torch.device("cuda"))
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name(), "torch": torch.__version__, "bandwidth": bandwidth, "layouts": {},
    }  # fmt: skip
    entries = dict.fromkeys(ROWS, "")
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool, torch.inference_mode():
        for name, heads in layouts.items():
            share_s = options.budget_s / len(layouts)
            search = CompileAhead(pool, compile_one, share_s)
            found = {
                use: timed(search, _sizes(heads, rows), variants(), (0.75 if rows == 1 else 0.4) * share_s)
                for use, rows in ROWS.items()
            }
            search.forget_waiting()
            every = {size: us for some in found.values() for size, us in some.items()}
            sys.stdout.write(f"\n{name}: {bandwidth / 1e12:.3f} TB/s\n{table(every, bandwidth)}")
            rightness = checked(search, heads, variants())
            for tuning, (error, same) in rightness.items():
                sys.stdout.write(f"error {error:5.2f} bits {'same' if same else 'DIFFER'}  {written(tuning)}\n")
            right = {t for t, (error, same) in rightness.items() if same and error <= WORST_ERROR}
            chosen = {use: choose(some, right) for use, some in found.items()}
            for use, cuts in chosen.items():
                entries[use] += measured_entry(heads, cuts) if cuts else f"    # {name}: nothing passed\n"
            more = more_ways(search, found["ONE_ROW"])
            for entry in more:
                times = " ".join(f"{what}: {us:.1f}" for what, us in entry["us"].items())
                sys.stdout.write(f"{entry['size']:32} {times}  {written(AttentionTuning(**entry['tuning']))}\n")
            results["layouts"][name] = {
                "timed": [
                    {"size": name_of(size), "us": us, "tuning": asdict(tuning)}
                    for size, all_us in every.items()
                    for tuning, us in all_us.items()
                ],
                "checked": [
                    {"tuning": asdict(t), "error": error, "same_bits": same} for t, (error, same) in rightness.items()
                ],
                "more": more,
                "chosen": {
                    use: {f"{tiles} tiles, {keys} keys": asdict(tuning) for (tiles, keys), tuning in cuts.items()}
                    for use, cuts in chosen.items()
                },
            }
            options.out.write_text(json.dumps(results, indent=1))
            sys.stdout.flush()
        pool.shutdown(wait=False, cancel_futures=True)
    for use, text in entries.items():
        sys.stdout.write(f"\nFor attention_tuning.{use}:\n{text}")


def _sizes(heads: HeadLayout, rows: int) -> list[AttentionSize]:
    return [AttentionSize(heads, batch, context, rows) for context in CONTEXTS for batch in BATCHES]


if __name__ == "__main__":
    main()
