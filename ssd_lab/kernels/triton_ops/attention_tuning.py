"""How attention is cut over the GPU, and the cuts that were measured to be the best.

Where the time goes at batch 1, 8,192 tokens and Llama 8B's heads (33.5 MB of K/V a layer: 10.8 us at 3.1 TB/s; 24 us
measured with the defaults, 18 with `_FEW`), as far as it can be read from the machine code:

* 512 programs of one split each. Each has 64 KB under way and takes 78 KB of shared memory, so a processor holds two
  of them and 264 run at once: two waves. That is ample for the memory (bandwidth times latency is 19 KB a processor),
  but a program's chain of waits (prefix, block table, K and V, two products, results) is paid for twice. `direct`
  leaves results from where the product has them, without 4 KB to put them in order: 74 KB and 111 registers instead of
  138, so three run on a processor, 396 at once.
* The second launch adds 64 splits. The compiler starts the loads of a few of them at once, so it waits some two dozen
  times for the second cache; at half a microsecond (an estimate) that is as much as reading all K and V. `gathered`
  starts the loads of `unroll` splits before the first is added.
* Both launches wait for the one before them, then for the prefix, then for the table. `early` reads those, and the
  K/V of the first split that older steps wrote, while the kernel ahead still runs.

The copy engine is of no use here: on compute capability 9.0 it fetches one block of 16 keys at a time, and gathers
none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from ssd_lab.errors import ConfigError
from ssd_lab.kernels.interface import HeadLayout

LANES = 16  # rows of the product on the matrix units, at least


@dataclass(frozen=True)
class AttentionTuning:
    """Choices that change the speed. Those in `bits` change the result's last bits too; the others no bit.

    lanes: rows times query heads that share a product, a power of 2 of at least `LANES`, which trees take. split,
    float32_split: keys of one split, a power of 2 of at least 16; float32 has its own, since its products do not run on
    the matrix units and large ones do not fit the registers. programs: how many programs fill the GPU; with fewer tiles
    the splits are spread over as many. partials_mib: working memory at most; beyond it one program does all splits of a
    tile; else a second launch adds them. tree_tile_rows: rows of a tile where some keys are each row's own. unroll:
    splits whose loads may be under way at once while splits are added, a power of 2; gathered: they are, all of them,
    before the first is added. direct: a split's values are stored as the product left them. early: with programmatic
    dependent launch, prefix lengths, block tables and the first split's K/V are read before the kernels ahead have
    ended; of all that, those write K/V of this step's rows only (and see `wait_for_previous`).
    """

    split: int = 128
    float32_split: int = 32
    programs: int = 4 * 132
    partials_mib: int = 256
    tree_tile_rows: int = 2
    unroll: int = 8
    gathered: bool = False
    early: bool = False
    direct: bool = False
    num_warps: int = 4
    num_stages: int = 2
    combine_warps: int = 1
    lanes: int = LANES

    def __post_init__(self) -> None:
        for split in (self.split, self.float32_split):
            if split < 16 or split & (split - 1):
                raise ConfigError(f"a split is {split} keys: a power of 2 of at least 16 is allowed")
        if self.unroll < 1 or self.unroll & (self.unroll - 1):
            raise ConfigError(f"unroll is {self.unroll}: a power of 2 is allowed")

    @property
    def bits(self) -> tuple[int, int]:
        """What the order of sums follows from: equal for all work of a model, or rows lose their bits."""
        return self.split, self.float32_split


@dataclass(frozen=True)
class SizedTunings:
    """Tunings by the number of tiles and keys: the first of whose bounds (most tiles, most keys) neither is exceeded,
    else the last.

    A tile is as many rows of one sequence, with one K/V head, as a product takes. Raises ConfigError if the bounds do
    not rise, or if the tunings differ in `AttentionTuning.bits`.
    """

    by_size: tuple[tuple[int, int, AttentionTuning], ...]

    def __post_init__(self) -> None:
        bounds = [(tiles, keys) for tiles, keys, _ in self.by_size]
        if not bounds or bounds != sorted(set(bounds)):
            raise ConfigError(
                f"tunings are for at most {bounds} tiles and keys: at least one pair, each above the one before"
            )
        if len({tuning.bits for *_, tuning in self.by_size}) > 1:
            raise ConfigError("tunings of one model differ in split or float32_split: give all the same")

    def at(self, tiles: int, keys: int) -> AttentionTuning:
        """The tuning for so many tiles, of at most so many keys each."""
        fitting = (tuning for most, longest, tuning in self.by_size if tiles <= most and keys <= longest)
        return next(fitting, self.by_size[-1][2])


@dataclass(frozen=True)
class AttentionShape:
    """What a tuning is chosen by. rows: of each sequence. keys: at most, of each row. tree: are some of these each
    row's own?
    """

    heads: HeadLayout
    batch: int
    rows: int
    keys: int
    tree: bool

    @property
    def tiles(self) -> int:
        """Of `LANES`."""
        return self.batch * -(-self.rows // rows_of_a_tile(self.heads)) * self.heads.num_kv_heads


AttentionChoice = Callable[[AttentionShape], AttentionTuning]

ANY = 1 << 31  # keys
MANY_ROWS = AttentionTuning(gathered=True)  # of a sequence, but too few for a prompt
_FEW = AttentionTuning(programs=264, unroll=16, gathered=True, early=True, direct=True, num_stages=1, combine_warps=4)
_MANY = AttentionTuning(programs=264, unroll=16, gathered=True, early=True, combine_warps=4)
_WAVES = replace(_FEW, programs=528)
_SHARED = replace(_FEW, lanes=32)

# By (query heads, K/V heads, head size): what was the fastest on an H200 behind the rotation, as in a decoder, or
# within 6 % of it (`docs/results/h200-attention.md`). `studies.tune_kernels.attention` finds such tables.
ONE_ROW: Mapping[tuple[int, int, int], SizedTunings] = MappingProxyType(
    {
        (32, 8, 128): SizedTunings(
            (
                (8, ANY, _FEW),
                (32, 2048, _FEW),
                (32, ANY, _MANY),
                (128, 512, _FEW),
                (128, ANY, MANY_ROWS),
                (512, ANY, _MANY),
            )
        ),
        (32, 8, 64): SizedTunings(
            (
                (8, 8192, _FEW),
                (8, ANY, MANY_ROWS),
                (32, 2048, _WAVES),
                (32, ANY, MANY_ROWS),
                (128, 512, _WAVES),
                (128, ANY, MANY_ROWS),
                (512, ANY, replace(_WAVES, direct=False)),
            )
        ),
    }
)
# The same for a verification's few rows of each sequence: with 32 lanes, two tiles become one that reads keys once.
FEW_ROWS: Mapping[tuple[int, int, int], SizedTunings] = MappingProxyType(
    {(32, 8, 128): SizedTunings(((32, 512, MANY_ROWS), (64, ANY, _SHARED), (512, ANY, _MANY), (1024, ANY, _SHARED)))}
)
MOST_FEW_ROWS = 4  # tiles of a sequence
# Rows of a tree: a row's own keys are few, common ones are read once for eight rows. Steps of trees of 15 branches on
# an H200, ms, before those keys had programs of their own and now: 1B at 512 tokens 1.06 and 1.01, at 4,096 tokens 1.29
# and 1.14, 16 of them 2.19 and 2.08; Qwen3 0.6B 1.16 and 0.97 (`docs/results/two-gpus.md`).
TREES = AttentionTuning(gathered=True, early=True, direct=True, num_stages=1, tree_tile_rows=8)
# Prompts, where the products count: four times the rows read each key once. On an H200 with 16 and with 64 lanes, 512
# rows take 33 and 21 us, 2,048 rows 307 and 183, 2,048 rows behind 4,952 others 1,567 and 839; 80 rows are faster with
# 16. With two stages, keys of 128 numbers leave no room for a second program on a processor.
PROMPT = AttentionTuning(lanes=64, programs=132, num_stages=1)
PROMPT_TILES = 400  # of `LANES`: fewer do not fill the GPU when four become one


def measured_attention(shape: AttentionShape) -> AttentionTuning:
    """The measured tuning of these heads, or of 32 of their size, or the defaults."""
    heads, rows, rows_of_one = shape.heads, shape.rows, rows_of_a_tile(shape.heads)
    if not shape.tree and shape.tiles >= PROMPT_TILES and rows >= 4 * rows_of_one:
        return PROMPT if heads.head_dim > 64 else replace(PROMPT, num_stages=2)
    key, alike = (heads.num_heads, heads.num_kv_heads, heads.head_dim), (32, 8, heads.head_dim)
    one_row = ONE_ROW.get(key) or ONE_ROW.get(alike)  # 16 heads of 128: a draft step 4 % shorter
    if one_row is None:
        return AttentionTuning()
    if rows == 1:
        return one_row.at(shape.tiles, shape.keys)
    if shape.tree:
        return TREES
    few = FEW_ROWS.get(alike if heads.group == 4 else key)  # as many rows in a tile
    is_few = rows_of_one < rows <= MOST_FEW_ROWS * rows_of_one
    return few.at(shape.tiles, shape.keys) if few is not None and is_few else MANY_ROWS


def rows_of_a_tile(heads: HeadLayout, lanes: int = LANES) -> int:
    """Rows of one sequence whose heads fill a product of so many lanes."""
    return max(1, lanes // heads.group)
