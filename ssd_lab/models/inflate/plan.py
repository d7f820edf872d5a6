"""Where each part of a small model goes in a wide one, and which numbers make up for the padding.

docs/guides/full-size.md derives the formulas.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.families.llama import LLAMA

MAX_COPIES = 8  # of the residual stream, tried to make the norm's factor a power of two


@dataclass(frozen=True)
class ResidualPlan:
    """The wide residual stream: `[small, scales[0] * small, scales[1] * small, ..., 0, ..., 0, constant]`.

    scales: powers of two; no matrix reads these copies, they only make `norm_scale` a power of two where they can.
    constant: what the last dimension holds at every real token, 0 if no vocabulary is padded. norm_scale: times the
    small norm weights. eps: of the wide norms.
    """

    small: int
    wide: int
    scales: tuple[float, ...]
    constant: float
    norm_scale: float
    eps: float


@dataclass(frozen=True)
class InflationPlan:
    """All that the wide tensors are made from beside the small ones.

    config: of the wide model. query_heads, kv_heads: the small head in each wide head, or None. rotary: the wide
    dimension of each dimension of a small head. query_scale: times the small query weights. layers: the small layer in
    each wide layer, or None for an identity. notes: what differs from the published model, in words.
    """

    small: ModelConfig
    config: ModelConfig
    residual: ResidualPlan
    query_heads: tuple[int | None, ...]
    kv_heads: tuple[int | None, ...]
    rotary: tuple[int, ...]
    query_scale: float
    layers: tuple[int | None, ...]
    notes: tuple[str, ...]

    @property
    def copies_exactly(self) -> bool:
        """Are all weights copied bit for bit, but for powers of two?"""
        return _is_power_of_two(self.residual.norm_scale) and _is_power_of_two(self.query_scale)


def plan_inflation(small: ModelConfig, wide: ModelConfig, name: str) -> InflationPlan:
    """How `small` fits into the shape `wide`, called `name` in errors.

    Raises ModelLoadError, which says what does not fit, if there is no wide model of the same function.
    """
    _check_kind(small)
    _check_sizes(small, wide, name)
    query_heads, kv_heads = _place_heads(small, wide, name)
    padded_vocabulary = wide.vocab_size > small.vocab_size
    residual = _plan_residual(small, wide, padded_vocabulary, name)
    rotary = _place_rotary(small.head_dim, wide.head_dim)
    config = dataclasses.replace(
        wide,
        model_type=LLAMA.model_type,
        qk_norm=False,
        rms_eps=residual.eps,
        rope_theta=small.rope_theta,
        rope_scaling=_widen_scaling(small, wide),
        tie_embeddings=small.tie_embeddings and wide.tie_embeddings,
        eos_token_ids=small.eos_token_ids,
        bos_token_id=small.bos_token_id,
    )
    layers: list[int | None] = [None] * wide.num_layers
    for index in range(small.num_layers):
        layers[index * wide.num_layers // small.num_layers] = index
    return InflationPlan(
        small=small,
        config=config,
        residual=residual,
        query_heads=query_heads,
        kv_heads=kv_heads,
        rotary=rotary,
        query_scale=math.sqrt(wide.head_dim / small.head_dim),
        layers=tuple(layers),
        notes=tuple(_notes(small, wide)),
    )


def _check_kind(small: ModelConfig) -> None:
    if small.qk_norm:
        raise ModelLoadError(
            "a model that normalises its query and key heads (Qwen3) cannot be inflated: its norms would run over "
            "other numbers; take one of the Llama family (bundled-target, bundled-draft, SmolLM2)"
        )
    if small.model_type != LLAMA.model_type:
        raise ModelLoadError(
            f"a model of type {small.model_type!r} cannot be inflated: the geometries are made of {LLAMA.name}'s blocks"
        )
    if small.attention_bias:
        raise ModelLoadError(
            "a model with attention biases cannot be inflated: no published geometry has a place for them"
        )


def _check_sizes(small: ModelConfig, wide: ModelConfig, name: str) -> None:
    pairs = {
        "hidden size": (small.hidden_size, wide.hidden_size),
        "layers": (small.num_layers, wide.num_layers),
        "query heads": (small.num_heads, wide.num_heads),
        "MLP size": (small.mlp_size, wide.mlp_size),
        "vocabulary": (small.vocab_size, wide.vocab_size),
    }
    too_large = [f"{what} {mine:,} > {room:,}" for what, (mine, room) in pairs.items() if mine > room]
    if too_large:
        raise ModelLoadError(
            f"the model does not fit into {name}: {', '.join(too_large)}; take a larger geometry or a smaller model"
        )
    if wide.head_dim % small.head_dim:
        raise ModelLoadError(
            f"heads of {small.head_dim} do not fit into the heads of {wide.head_dim} of {name}: the rotary frequencies "
            f"of one are among those of the other only if {wide.head_dim} is a multiple of {small.head_dim}"
        )


def _place_heads(
    small: ModelConfig, wide: ModelConfig, name: str
) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
    """Each small K/V head, as often as its query heads need it, with these query heads in the groups that it serves."""
    small_group = small.num_heads // small.num_kv_heads
    wide_group = wide.num_heads // wide.num_kv_heads
    repeats = -(-small_group // wide_group)
    if small.num_kv_heads * repeats > wide.num_kv_heads:
        raise ModelLoadError(
            f"{small.num_heads} query heads over {small.num_kv_heads} K/V heads do not fit into {name}: its K/V heads "
            f"serve {wide_group} query heads each, so {small.num_kv_heads * repeats} of them are needed and there are "
            f"{wide.num_kv_heads}"
        )
    query_heads: list[int | None] = [None] * wide.num_heads
    kv_heads: list[int | None] = [None] * wide.num_kv_heads
    for head in range(small.num_kv_heads):
        for repeat in range(repeats):
            place = head * repeats + repeat
            kv_heads[place] = head
            served = range(repeat * wide_group, min((repeat + 1) * wide_group, small_group))
            for offset, query in enumerate(served):
                query_heads[place * wide_group + offset] = head * small_group + query
    return tuple(query_heads), tuple(kv_heads)


def _place_rotary(small: int, wide: int) -> tuple[int, ...]:
    """Pair (i, i + small / 2) goes to pair (j, j + wide / 2), j = i * wide / small, which turns equally fast."""
    step = wide // small
    first = [pair * step for pair in range(small // 2)]
    return (*first, *(dimension + wide // 2 for dimension in first))


def _widen_scaling(small: ModelConfig, wide: ModelConfig) -> dict[str, Any] | None:
    """The small model's rope scaling; one that is written out by frequency gets 1 for those between."""
    if small.rope_scaling is None:
        return None
    scaling = dict(small.rope_scaling)
    if scaling.get("rope_type", scaling.get("type")) == "yarn" and wide.head_dim != small.head_dim:
        raise ModelLoadError(
            f"the model's rope scaling is yarn, which depends on the size of a head ({small.head_dim} against "
            f"{wide.head_dim}): inflate a model with another scaling"
        )
    if "divisors" in scaling:
        divisors = [1.0] * (wide.head_dim // 2)
        divisors[:: wide.head_dim // small.head_dim] = scaling["divisors"]
        scaling["divisors"] = divisors
    return scaling


def _plan_residual(small: ModelConfig, wide: ModelConfig, padded_vocabulary: bool, name: str) -> ResidualPlan:
    h, H = small.hidden_size, wide.hidden_size
    if padded_vocabulary and h == H:
        raise ModelLoadError(
            f"the model fills the whole residual stream of {name} ({h:,}), and its vocabulary is smaller: keeping the "
            f"{wide.vocab_size - small.vocab_size:,} unused tokens unlikely takes one dimension more"
        )
    constant = 0.0
    if padded_vocabulary:  # the largest power of two whose square is at most half of what epsilon adds to the squares
        constant = 2.0 ** math.floor(math.log2(math.sqrt(small.rms_eps * h / 2)))
    scales = _copy_scales(h, H, room=(H - padded_vocabulary) // h - 1)
    energy = 1 + sum(scale * scale for scale in scales)
    return ResidualPlan(
        small=h,
        wide=H,
        scales=scales,
        constant=constant,
        norm_scale=math.sqrt(energy * h / H),
        eps=(small.rms_eps * energy * h - constant * constant) / H,
    )


def _copy_scales(small: int, wide: int, room: int) -> tuple[float, ...]:
    """Scales of the fewest copies, at most `room`, that make (1 + their squares) * small / wide a power of four.

    None if no such copies exist (wide / small has an odd divisor in its denominator) or fit.
    """
    best: tuple[float, ...] | None = None
    ratio, power = Fraction(wide, small), 0
    while ratio / 4**power >= 1:
        scales = _as_squares(ratio / 4**power - 1)
        if scales is not None and len(scales) <= room and (best is None or len(scales) <= len(best)):
            best = scales
        power += 1
    return best or ()


def _as_squares(number: Fraction) -> tuple[float, ...] | None:
    """Powers of two whose squares sum to the number, largest first; None if that takes over MAX_COPIES of them."""
    scales: list[float] = []
    scale = Fraction(2) ** 10
    while number and len(scales) <= MAX_COPIES and scale > Fraction(1, 2**10):
        if scale * scale <= number:
            number -= scale * scale
            scales.append(float(scale))
        else:
            scale /= 2
    return None if number or len(scales) > MAX_COPIES else tuple(scales)


def _is_power_of_two(number: float) -> bool:
    return math.frexp(number)[0] == 0.5


def _notes(small: ModelConfig, wide: ModelConfig) -> list[str]:
    notes = []
    if wide.qk_norm:
        notes.append(
            "Llama architecture in this Qwen3 shape: the norms of query and key heads are left out, as they would "
            f"change the function ({2 * wide.head_dim * wide.num_layers:,} weights fewer)"
        )
    if wide.tie_embeddings and not small.tie_embeddings:
        notes.append("the output head has weights of its own, as in the small model; the published model ties it")
    if small.rope_theta != wide.rope_theta or small.rope_scaling != wide.rope_scaling:
        notes.append("the rotary frequencies are the small model's")
    return notes
