"""Which of attention's measured cuts to take, and the text that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from statistics import geometric_mean

from ssd_lab.kernels.interface import HeadLayout
from ssd_lab.kernels.triton_ops.attention_tuning import AttentionTuning, rows_of_a_tile
from studies.tune_kernels.attention_timing import AttentionSize

DEFAULT = AttentionTuning()


def choose(
    found: Mapping[AttentionSize, Mapping[AttentionTuning, float]], right: set[AttentionTuning]
) -> dict[int, AttentionTuning]:
    """By number of tiles the fastest over its contexts, all of the one kind of sums that is fastest over all sizes.

    right: variants that passed the check. A variant is compared where all of its rivals were timed.
    """
    by_tiles: dict[int, list[Mapping[AttentionTuning, float]]] = {}
    for size, us in found.items():
        tiles = size.batch * -(-size.rows // rows_of_a_tile(size.heads)) * size.heads.num_kv_heads
        by_tiles.setdefault(tiles, []).append(us)
    kinds = {tuning.bits for tuning in right}
    choices: list[tuple[float, dict[int, AttentionTuning]]] = []
    for kind in kinds:
        chosen: dict[int, AttentionTuning] = {}
        times: list[float] = []
        for tiles, all_us in sorted(by_tiles.items()):
            rivals = [t for t in all_us[0] if t in right and t.bits == kind and all(t in us for us in all_us)]
            if not rivals:
                break
            means = {tuning: geometric_mean([us[tuning] for us in all_us]) for tuning in rivals}
            chosen[tiles] = min(means, key=means.__getitem__)
            times.append(means[chosen[tiles]])
        else:
            choices.append((geometric_mean(times), chosen))
    return min(choices, key=lambda pair: pair[0])[1] if choices else {}


def name_of(size: AttentionSize) -> str:
    """As in the tables."""
    heads = size.heads
    return f"{heads.num_heads}/{heads.num_kv_heads}x{heads.head_dim} batch {size.batch} context {size.context}"


def written(tuning: AttentionTuning) -> str:
    """The tuning as Python, without what is the default."""
    own = [(field.name, getattr(tuning, field.name)) for field in fields(tuning)]
    return f"AttentionTuning({', '.join(f'{n}={v!r}' for n, v in own if v != getattr(DEFAULT, n))})"


def measured_entry(heads: HeadLayout, chosen: Mapping[int, AttentionTuning]) -> str:
    """An entry of `attention_tuning.MEASURED`; a tuning that several bounds share stands at the last."""
    bounds = sorted(chosen)
    kept = [
        n for n, after in zip(bounds, [*bounds[1:], None], strict=True) if after is None or chosen[n] != chosen[after]
    ]
    lines = "".join(f"            ({tiles}, {written(chosen[tiles])}),\n" for tiles in kept)
    key = (heads.num_heads, heads.num_kv_heads, heads.head_dim)
    return f"    {key}: SizedTunings(\n        (\n{lines}        )\n    ),\n"


def table(found: Mapping[AttentionSize, Mapping[AttentionTuning, float]], bandwidth: float, best: int = 4) -> str:
    """The default and the best of each size: microseconds, and the part of the bandwidth that K/V moved with."""
    text = ""
    for size, us in found.items():
        ranked = sorted(us, key=us.__getitem__)[:best]
        for tuning in dict.fromkeys([*(t for t in (DEFAULT,) if t in us), *ranked]):
            share = size.kv_bytes / us[tuning] * 1e6 / bandwidth
            text += f"{name_of(size):32} {us[tuning]:8.2f} us {share:6.1%}  {written(tuning)}\n"
    return text
