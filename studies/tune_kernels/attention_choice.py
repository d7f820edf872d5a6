"""Which of attention's measured cuts to take, and the text that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from itertools import zip_longest
from statistics import geometric_mean

from ssd_lab.kernels.interface import HeadLayout
from ssd_lab.kernels.triton_ops.attention_tuning import AttentionTuning
from studies.tune_kernels.attention_timing import AttentionSize

DEFAULT = AttentionTuning()
WORTH = 0.95  # of a time: what is not shorter is no reason for a kernel more
Chosen = dict[tuple[int, int], AttentionTuning]


def choose(found: Mapping[AttentionSize, Mapping[AttentionTuning, float]], right: set[AttentionTuning]) -> Chosen:
    """By number of tiles and keys the fastest; of one number of tiles the fastest over its contexts wherever no other
    is 5 % faster. All are of the one kind of sums that is fastest over all sizes.

    right: variants that passed the check. A variant is compared where all of its rivals were timed.
    """
    by_tiles: dict[int, dict[int, Mapping[AttentionTuning, float]]] = {}
    for size, us in found.items():
        by_tiles.setdefault(size.shape.tiles, {})[size.context] = us
    choices: list[tuple[float, Chosen]] = []
    for kind in {tuning.bits for tuning in right}:
        chosen: Chosen = {}
        times: list[float] = []
        for tiles, by_context in sorted(by_tiles.items()):
            timed = by_context.values()
            rivals = [t for t in next(iter(timed)) if t in right and t.bits == kind and all(t in us for us in timed)]
            if not rivals:
                break
            usual = min(rivals, key=lambda tuning: geometric_mean([us[tuning] for us in timed]))
            for context, us in sorted(by_context.items()):
                best = min(rivals, key=us.__getitem__)
                chosen[tiles, context] = best if us[best] < WORTH * us[usual] else usual
                times.append(us[chosen[tiles, context]])
        else:
            choices.append((geometric_mean(times), chosen))
    return min(choices, key=lambda pair: pair[0])[1] if choices else {}


def name_of(size: AttentionSize) -> str:
    """As in the tables."""
    heads = size.heads
    return f"{heads.num_heads}/{heads.num_kv_heads}x{heads.head_dim} batch {size.batch} context {size.context}" + (
        f" rows {size.rows}" if size.rows > 1 else ""
    )


def written(tuning: AttentionTuning) -> str:
    """The tuning as Python, without what is the default."""
    own = [(field.name, getattr(tuning, field.name)) for field in fields(tuning)]
    return f"AttentionTuning({', '.join(f'{n}={v!r}' for n, v in own if v != getattr(DEFAULT, n))})"


def measured_entry(heads: HeadLayout, chosen: Chosen) -> str:
    """An entry of `attention_tuning.ONE_ROW` or `FEW_ROWS`; what several bounds share stands at the last. The longest
    context that was timed stands for all that are longer.
    """
    by_tiles = {tiles: _by_keys(chosen, tiles) for tiles in sorted({tiles for tiles, _ in chosen})}
    lines = ""
    for (tiles, cuts), after in zip_longest(by_tiles.items(), list(by_tiles.values())[1:]):
        if cuts != after:
            lines += "".join(f"            ({tiles}, {keys}, {written(tuning)}),\n" for keys, tuning in cuts)
    key = (heads.num_heads, heads.num_kv_heads, heads.head_dim)
    return f"    {key}: SizedTunings(\n        (\n{lines}        )\n    ),\n"


def _by_keys(chosen: Chosen, tiles: int) -> list[tuple[str, AttentionTuning]]:
    contexts = sorted(context for most, context in chosen if most == tiles)
    cuts = [(str(context), chosen[tiles, context]) for context in contexts]
    cuts[-1] = ("ANY", cuts[-1][1])
    return [cut for cut, after in zip_longest(cuts, cuts[1:]) if after is None or cut[1] != after[1]]


def table(found: Mapping[AttentionSize, Mapping[AttentionTuning, float]], bandwidth: float, best: int = 4) -> str:
    """The default and the best of each size: microseconds, and the part of the bandwidth that K/V moved with."""
    text = ""
    for size, us in found.items():
        ranked = sorted(us, key=us.__getitem__)[:best]
        for tuning in dict.fromkeys([*(t for t in (DEFAULT,) if t in us), *ranked]):
            share = size.kv_bytes / us[tuning] * 1e6 / bandwidth
            text += f"{name_of(size):32} {us[tuning]:8.2f} us {share:6.1%}  {written(tuning)}\n"
    return text
