"""How a product of few rows with a weight is cut: by the weight's shape alone, never by the number of rows.

What limits such a product is the memory. To keep an H100 busy, bandwidth times latency has to be under way: 3.1 TB/s
times some 0.8 us is 2.5 MB, 19 KB for each of 132 processors; twice to four times that keeps it busy while pieces come
out of order. Hence three rules:

* Programs keep `shared_kib` of weights under way. About 100 leaves room for two programs on a processor, 200 for one.
* All programs are resident at once wherever the shape allows it (at most 264 of two a processor, 132 of one), each with
  the same work. They then share the memory evenly and end together, also if some processors hold two and some one.
* Weights do not depend on the kernel before. Yet asking for the first of them before waiting for it (with programmatic
  dependent launch) lost more than it gained at every shape: 8B down behind a norm took 43.5 us without, 45.5 with.

Predicted on an H100 at one row, from bytes over 95 % of 3.11 TB/s plus 1.5 us of start and end, in us: Llama 8B qkv
18.5, output 12.9, gate_up 81, down 41.2, head 357; 1B qkv 5.8, output 4.3, gate_up 24.2, down 12.9, head 179. Measured:
see `MEASURED`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ssd_lab.kernels.row_padding import LARGEST

ROW_BUCKETS = (16, 32, 64, 128)  # rows are padded to one of these: they are the columns of the tile
ELEMENT_BYTES = 2
FEWEST_STAGES, MOST_STAGES = 3, 12
SHORTEST_STEP = 64  # inputs: 128 bytes of a line


@dataclass(frozen=True)
class LinearTuning:
    """A tile is block_out outputs by block_k inputs. Bits depend on split_k alone (and on the kind of product
    instruction that num_warps and block_out allow), so nothing here may follow from the number of rows.

    split_k: programs that share a sum; more than 1 leaves `Partials`. shared_kib: what the tiles under way of one
    program may take. tma: tiles are fetched by the copy engine of compute capability 9.0, if the weight's lines are
    multiples of 16 bytes. library_rows: more than `row_padding.LARGEST` rows go to the library, so many at a time
    with padding; 0: none do. Where bits matter, only if the library then has the kernel's bits, which the row probe
    tests.
    """

    block_out: int = 64
    block_k: int = 128
    split_k: int = 1
    shared_kib: int = 100
    num_warps: int = 4
    tma: bool = True
    library_rows: int = 0

    def __post_init__(self) -> None:
        if self.library_rows and self.library_rows <= LARGEST:
            raise ValueError(f"library_rows is {self.library_rows}: 0, or more than {LARGEST}, is allowed")
        if self.block_out % (16 * self.num_warps) or self.block_out < 64 or self.block_k not in (64, 128, 256):
            raise ValueError(
                f"block_out {self.block_out} must be at least 64 and a multiple of 16 * num_warps "
                f"({16 * self.num_warps}), block_k {self.block_k} 64, 128 or 256"
            )

    def split_inputs(self, in_features: int) -> int:
        """Inputs that one split sums: whole tiles; the last split may have fewer and adds zeros."""
        return -(-in_features // (self.block_k * self.split_k)) * self.block_k

    def pipeline(self, in_features: int, padded_rows: int, tiles: int = 1) -> tuple[int, int, int]:
        """Inputs of a step, steps, and steps under way; tiles: weight tiles of a step (two for gate and up together).

        Many rows take room too: their steps are made shorter where fewer than `FEWEST_STAGES` would fit. That changes
        no bits: sums are one chain within a split.
        """
        block_k = self.block_k
        while self._fitting(block_k, padded_rows, tiles) < FEWEST_STAGES and block_k > SHORTEST_STEP:
            block_k //= 2
        steps = self.split_inputs(in_features) // block_k
        return block_k, steps, max(2, min(self._fitting(block_k, padded_rows, tiles), MOST_STAGES, steps))

    def _fitting(self, block_k: int, padded_rows: int, tiles: int) -> int:
        return self.shared_kib * 1024 // ((tiles * self.block_out + padded_rows) * block_k * ELEMENT_BYTES)


# `[out, in]` whose kernel was measured to be faster than the library's on an H100, from `studies.tune_kernels.linear`.
# Not split by the ideal at one row alone: of cuts within 2 % the one that is better at 24 to 112 rows was taken.
MEASURED: Mapping[tuple[int, int], LinearTuning] = MappingProxyType(
    {
        # Llama 8B: us at one row, and the library's
        (28672, 4096): LinearTuning(block_k=128, shared_kib=200),  # 80.5, 87.0 (which leaves silu to another kernel)
        (4096, 14336): LinearTuning(block_k=128, split_k=4),  # 41.5, 44.8
        (6144, 4096): LinearTuning(block_k=128, split_k=2),  # 19.3, 21.0
        (4096, 4096): LinearTuning(block_k=128, split_k=4),  # 13.5, 16.7
        (128256, 4096): LinearTuning(block_k=256, shared_kib=200),  # 341, 380
        # Llama 1B
        (16384, 2048): LinearTuning(block_k=128, shared_kib=200),  # 24.9, 27.1
        (2048, 8192): LinearTuning(block_k=128, split_k=8),  # 13.5, 16.3
        (3072, 2048): LinearTuning(block_k=128, split_k=8),  # 6.2, 7.4
        (2048, 2048): LinearTuning(block_k=64, split_k=8, tma=False),  # 4.8, 6.4
        (128256, 2048): LinearTuning(block_k=256, shared_kib=200),  # 171, 192
    }
)

TuningChoice = Callable[[int, int], LinearTuning | None]


def measured_tuning(out_features: int, in_features: int) -> LinearTuning | None:
    """The tuning of a shape that was measured to be faster than the library; None: leave it to the library."""
    return MEASURED.get((out_features, in_features))
