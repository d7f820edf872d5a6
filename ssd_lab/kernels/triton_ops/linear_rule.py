"""How a product with a weight of any shape is cut, by rules that the measured cuts of `linear_tuning.MEASURED` follow.

Measured on an H200 at the shapes of ten published models and of their tensor-parallel parts, beside the library
(docs/results/h200-products.md).
"""

from __future__ import annotations

from ssd_lab.kernels.triton_ops.linear_tuning import (
    FULL_GATED,
    LARGE,
    MEASURED,
    MIDDLE,
    MORE,
    PIECES,
    SHORT_GATED,
    SMALL,
    LinearTuning,
    Tile,
    Tiles,
)

PROCESSORS = 132  # of an H100 and an H200
LEAST_WEIGHTS, LEAST_INPUTS = 1 << 20, 768  # less is the library's: kernels would take longer to compile than they save
ROW_BOUNDS = (128, 256, 512, 1024, 2048)

# how fast a processor is that computes such tiles all the time, over the fastest
_WHOLE = (
    (1.0, LARGE),
    (0.85, MIDDLE),
    (0.65, SMALL),
    (0.45, Tile(64, 64, 128, 3, 4, whole=True)),
)
_GATED = (
    (1.0, FULL_GATED),
    (0.99, Tile(64, 256, 64, 4, 8)),
    (0.8, Tile(64, 128, 64, 4, 4)),
    (0.6, SHORT_GATED),
)


def tuning_of(out_features: int, in_features: int) -> LinearTuning | None:
    """The cut of a weight `[out, in]`: the measured one, or by rule; None: leave it to the library."""
    if out_features * in_features < LEAST_WEIGHTS or in_features < LEAST_INPUTS:
        return None
    return MEASURED.get((out_features, in_features)) or tuning_by_rule(out_features, in_features)


def tuning_by_rule(out_features: int, in_features: int) -> LinearTuning:
    """Few rows are the memory's matter: all processors have the same work, and sums in few pieces, since those are
    written and read. Many rows are the tensor cores': see `_best`.
    """
    is_head, is_tall = out_features > 20 * in_features, out_features > 4 * in_features
    split_k = 1 if is_head else _split(out_features, in_features, gated=is_tall)
    return LinearTuning(
        block_out=128 if is_head else 64,
        block_k=128,
        split_k=split_k,
        shared_kib=150 if is_head else 100 if split_k > 1 else 200,
        num_warps=8 if is_head else 4,
        many=_bounded([_many(out_features, in_features, split_k, rows) for rows in ROW_BOUNDS]),
        gated=_bounded([_best(out_features // 2, rows, _GATED)[1] for rows in ROW_BOUNDS]),
    )


def _split(out_features: int, in_features: int, *, gated: bool) -> int:
    """gated: one that is not split activates its result itself, which is worth some idle processors."""
    if gated:
        return 1 if out_features >= 96 * 128 else 2

    def cost(split: int) -> float:
        programs = -(-out_features // 64) * split
        turns = -(-programs // PROCESSORS)
        pieces = 128 * split / in_features  # written and read, over the weight's bytes, at 32 rows
        return turns * PROCESSORS / programs + pieces + (0.05 if turns == 1 else 0.0)

    return min((split for split in (1, 2, 4, 8) if split == 1 or in_features >= 256 * split), key=cost)


def _many(out_features: int, in_features: int, split_k: int, rows: int) -> Tile:
    speed, tile = _best(out_features, rows, _WHOLE)
    if split_k > 1:  # pieces cost their reader time: more, the more of them and the fewer inputs each has
        inputs = min(1.0, in_features / split_k / 1024)
        quality = 0.5 * (inputs**0.5 if rows <= ROW_BOUNDS[0] else inputs)
        if quality * _use(PIECES, out_features, rows, split_k) > speed:
            return PIECES
    return tile


def _best(columns: int, rows: int, tiles: tuple[tuple[float, Tile], ...]) -> tuple[float, Tile]:
    """The tile that makes most of the processors, and how much that is of what the fastest could."""
    return max(((quality * _use(tile, columns, rows), tile) for quality, tile in tiles), key=lambda pair: pair[0])


def _use(tile: Tile, columns: int, rows: int, splits: int = 1) -> float:
    """The part of the processors' time that goes into results: programs end together, and tiles are full."""
    row_tiles = -(-rows // tile.rows)
    programs = -(-columns // tile.block_out) * row_tiles * splits
    turns = -(-programs // PROCESSORS)
    return programs / (turns * PROCESSORS) * rows / (row_tiles * tile.rows)


def _bounded(tiles: list[Tile]) -> Tiles:
    """Each for at most so many rows, the last for more too; neighbours that are the same are one."""
    bounds = (*ROW_BOUNDS[:-1], MORE)
    return tuple(
        (bound, tile)
        for number, (bound, tile) in enumerate(zip(bounds, tiles, strict=True))
        if number + 1 == len(tiles) or tiles[number + 1] != tile
    )
