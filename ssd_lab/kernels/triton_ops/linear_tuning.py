"""How a product with a weight is cut: its sums by the weight's shape alone, its tiles by the number of rows too.

What limits a product of few rows is the memory. To keep an H100 busy, bandwidth times latency has to be under way:
3.1 TB/s times some 0.8 us is 2.5 MB, 19 KB for each of 132 processors; twice to four times that keeps it busy while
pieces come out of order. Hence three rules:

* Programs keep `shared_kib` of weights under way. About 100 leaves room for two programs on a processor, 200 for one.
* All programs are resident at once wherever the shape allows it (at most 264 of two a processor, 132 of one), each with
  the same work. They then share the memory evenly and end together, also if some processors hold two and some one.
* Weights do not depend on the kernel before: where `early_product` runs, a program fills its shared memory with them
  before it waits for that kernel. So a program takes no more than leaves room for the others', and a split that fits is
  fetched whole.

What limits one of many rows are the tensor cores, and before them the second cache: large tiles, so that each number
that is fetched meets many others, and few splits left in pieces, which are written and read in float32.

Predicted on an H100 at one row, from bytes over 95 % of 3.11 TB/s plus 1.5 us of start and end, in us: Llama 8B qkv
18.5, output 12.9, gate_up 81, down 41.2, head 357; 1B qkv 5.8, output 4.3, gate_up 24.2, down 12.9, head 179. Measured:
see `MEASURED`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

ROW_BUCKETS = (16, 32, 64)  # few rows are padded to one of these: they are the columns of the tile
ELEMENT_BYTES = 2
FEWEST_STAGES, MOST_STAGES = 3, 12
SHORTEST_STEP = 64  # inputs: 128 bytes of a line


@dataclass(frozen=True)
class Tile:
    """What one program computes: block_out outputs of so many rows, block_k inputs a step, `stages` steps under way.

    whole: it makes all splits of its results, and else one. tma: the copy engine fetches what it can. No bit depends on
    any of it.
    """

    block_out: int
    rows: int
    block_k: int
    stages: int
    num_warps: int
    whole: bool = False
    tma: bool = True

    def dividing(self, split_inputs: int) -> Tile:
        """With steps of which a split is a whole number. One step alone is not made whole: the compiler would take a
        sum of products that begin at 0 for one chain.
        """
        block_k = math.gcd(self.block_k, split_inputs)
        return replace(self, block_k=block_k, whole=self.whole and block_k < split_inputs)

    def within(self, shared_bytes: int, weights: int = 1) -> Tile:
        """With no more stages than fit so much shared memory. weights: weight tiles of a step."""
        stage_bytes = (weights * self.block_out + self.rows) * self.block_k * ELEMENT_BYTES
        return replace(self, stages=max(1, min(self.stages, shared_bytes // stage_bytes)))


MORE = 1 << 30  # rows: no bound
Tiles = tuple[tuple[int, Tile], ...]  # each for at most so many rows

PIECES = Tile(128, 128, 64, 6, 8)
SMALL = Tile(64, 128, 128, 4, 4, whole=True)
MIDDLE = Tile(128, 128, 64, 6, 8, whole=True)
LARGE = Tile(128, 256, 64, 4, 8, whole=True)
FULL_GATED = Tile(128, 128, 64, 4, 8)
SPLIT: Tiles = ((128, PIECES), (768, MIDDLE), (MORE, LARGE))
SHORT_GATED = Tile(64, 64, 128, 3, 4)
GATED: Tiles = ((1536, FULL_GATED), (MORE, Tile(64, 256, 64, 4, 8)))


@dataclass(frozen=True)
class LinearTuning:
    """A tile of few rows is block_out outputs by block_k inputs. Bits depend on split_k alone, so that may not follow
    from the number of rows.

    split_k: programs that share a sum; more than 1 leaves `Partials`, except of many rows. shared_kib: what the tiles
    under way of one program may take. tma: few rows are fetched by the copy engine of compute capability 9.0, if the
    weight's lines are multiples of 16 bytes. many: tiles for more rows than the largest of
    `ROW_BUCKETS`; gated: the same of gate and up together.
    """

    block_out: int = 64
    block_k: int = 128
    split_k: int = 1
    shared_kib: int = 100
    num_warps: int = 4
    tma: bool = True
    many: Tiles = SPLIT
    gated: Tiles = GATED

    def __post_init__(self) -> None:
        if any(tile.whole for _, tile in self.gated):
            raise ValueError("a tile of gate and up together is of one split: give whole=False")
        if self.block_out % (16 * self.num_warps) or self.block_out < 64 or self.block_k not in (64, 128, 256):
            raise ValueError(
                f"block_out {self.block_out} must be at least 64 and a multiple of 16 * num_warps "
                f"({16 * self.num_warps}), block_k {self.block_k} 64, 128 or 256"
            )

    def tile(self, in_features: int, count: int, *, gated: bool = False) -> Tile:
        """For `count` rows. gated: of gate and up together, which only a sum in one split can be."""
        padded = next((bucket for bucket in ROW_BUCKETS if bucket >= count), None)
        if padded is None:
            tiles = self.gated if gated else self.many
            tile = next(tile for most, tile in tiles if count <= most)
            return tile.dividing(self.split_inputs(in_features))
        block_k, stages = self._pipeline(in_features, padded, 2 if gated else 1)
        return Tile(self.block_out, padded, block_k, stages, self.num_warps, tma=self.tma)

    def split_inputs(self, in_features: int) -> int:
        """Inputs that one split sums: whole tiles; the last split may have fewer and adds zeros."""
        return -(-in_features // (self.block_k * self.split_k)) * self.block_k

    def _pipeline(self, in_features: int, padded_rows: int, tiles: int) -> tuple[int, int]:
        """Inputs of a step, and steps under way; tiles: weight tiles of a step (two for gate and up together).

        Rows take room too: steps are made shorter where fewer than `FEWEST_STAGES` would fit.
        """
        block_k = self.block_k
        while self._fitting(block_k, padded_rows, tiles) < FEWEST_STAGES and block_k > SHORTEST_STEP:
            block_k //= 2
        steps = self.split_inputs(in_features) // block_k
        return block_k, max(2, min(self._fitting(block_k, padded_rows, tiles), MOST_STAGES, steps))

    def _fitting(self, block_k: int, padded_rows: int, tiles: int) -> int:
        return self.shared_kib * 1024 // ((tiles * self.block_out + padded_rows) * block_k * ELEMENT_BYTES)


_NARROW: Tiles = ((128, PIECES), (512, Tile(64, 64, 128, 3, 4, whole=True)), (1024, SMALL), (MORE, MIDDLE))

# `[out, in]` whose kernel was measured to be faster than the library's on an H100, from `studies.tune_kernels.linear`.
# Not split by the ideal at one row alone: of cuts within 2 % the one that is better at 24 to 112 rows was taken. How
# much room programs of few rows take, and tiles of heads, follow whole steps on an H200 (`docs/results/h200-early.md`);
# the microseconds beside them are of the cuts before. Tiles of many rows: the best of those above on an H200 at 80 to
# 2,048 rows, or one within 5 % of it (`docs/results/many-rows.md`, from `studies.tune_kernels.many_rows`).
MEASURED: Mapping[tuple[int, int], LinearTuning] = MappingProxyType(
    {
        # Llama 8B: us at one row, and the library's
        (28672, 4096): LinearTuning(block_k=128, shared_kib=150),  # 80.5, 87.0 (which leaves silu to another kernel)
        (4096, 14336): LinearTuning(  # 41.5, 44.8
            block_k=128, split_k=4, many=((128, PIECES), (256, SMALL), (768, MIDDLE), (MORE, LARGE))
        ),
        (6144, 4096): LinearTuning(  # 19.3, 21.0
            block_k=128,
            split_k=2,
            many=((128, PIECES), (256, MIDDLE), (768, LARGE), (1536, MIDDLE), (MORE, LARGE)),
        ),
        (4096, 4096): LinearTuning(  # 13.5, 16.7
            block_k=128, split_k=4, shared_kib=60, many=((128, PIECES), (256, SMALL), (768, MIDDLE), (MORE, LARGE))
        ),
        (128256, 4096): LinearTuning(block_out=128, num_warps=8, shared_kib=150),  # 341, 380
        # Llama 1B
        (16384, 2048): LinearTuning(  # 24.9, 27.1
            block_k=128,
            shared_kib=200,
            gated=((128, Tile(128, 64, 64, 4, 8)), (MORE, Tile(64, 128, 64, 3, 4))),
        ),
        (2048, 8192): LinearTuning(  # 13.5, 16.3
            block_k=128,
            split_k=8,
            many=((256, PIECES), (768, SMALL), (1536, MIDDLE), (MORE, LARGE)),
        ),
        (3072, 2048): LinearTuning(  # 6.2, 7.4
            block_k=128, split_k=8, many=((256, SMALL), (768, MIDDLE), (1536, LARGE), (MORE, MIDDLE))
        ),
        (2048, 2048): LinearTuning(  # 4.8, 6.4
            block_k=128, split_k=8, many=((128, PIECES), (768, SMALL), (1536, MIDDLE), (MORE, LARGE))
        ),
        (128256, 2048): LinearTuning(block_out=128, num_warps=8, shared_kib=150),  # 171, 192
        # Qwen3 0.6B, on an H200: a step of 0.838 ms with two pieces here and eight below, 0.796 so
        (6144, 1024): LinearTuning(
            shared_kib=200,
            many=((128, SMALL), (256, MIDDLE), (512, LARGE), (1024, MIDDLE), (MORE, LARGE)),
            gated=((128, SHORT_GATED), (256, Tile(64, 128, 64, 4, 4)), (MORE, FULL_GATED)),
        ),
        (1024, 2048): LinearTuning(split_k=4, many=_NARROW),
        (1024, 3072): LinearTuning(split_k=4, shared_kib=128, many=_NARROW),
    }
)

TuningChoice = Callable[[int, int], LinearTuning | None]
