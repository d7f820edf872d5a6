"""Rotary position embeddings (Su et al., arXiv 2104.09864), with the scalings that checkpoints ask for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from ssd_lab.errors import ModelLoadError

KINDS = ("linear", "llama3", "yarn")  # scalings, by their names in a config


def inverse_frequencies(head_dim: int, theta: float, scaling: Mapping[str, Any] | None) -> torch.Tensor:
    """Rotation per position of each pair of dimensions, `[head_dim / 2]`, float32. Raises ModelLoadError for an
    unknown scaling.
    """
    base = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim)
    kind = "default" if not scaling else scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return base
    try:
        if scaling is not None and kind == "linear":
            return base / scaling["factor"]
        if scaling is not None and kind == "llama3":
            return _llama3(base, scaling)
        if scaling is not None and kind == "yarn":
            return _yarn(base, scaling, head_dim, theta)
        if scaling is not None and kind == "divisors":  # how GGUF files write any scaling
            return base / torch.tensor(scaling["divisors"], dtype=torch.float32)
    except KeyError as error:
        raise ModelLoadError(f"rope scaling {kind!r} needs the entry {error} in the config") from error
    raise ModelLoadError(f"rope scaling {kind!r} is not supported: default, {', '.join(KINDS)} are")


def attention_factor(scaling: Mapping[str, Any] | None) -> float:
    """What cosines and sines are multiplied with: YaRN makes attention sharper on long contexts; others do not."""
    if not scaling or scaling.get("rope_type", scaling.get("type")) != "yarn":
        return 1.0
    if scaling.get("attention_factor") is not None:
        return float(scaling["attention_factor"])
    factor, scale, scale_all = scaling["factor"], scaling.get("mscale"), scaling.get("mscale_all_dim")
    if scale and scale_all:
        return _yarn_scale(factor, scale) / _yarn_scale(factor, scale_all)
    return _yarn_scale(factor, 1.0)


def _llama3(base: torch.Tensor, scaling: Mapping[str, Any]) -> torch.Tensor:
    """Llama 3.1's scaling: long wavelengths are stretched by `factor`, short ones kept, those between blended."""
    old_length = scaling["original_max_position_embeddings"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    wavelength = 2 * math.pi / base
    stretched = base / scaling["factor"]
    blend = (old_length / wavelength - low) / (high - low)
    blended = (1 - blend) * stretched + blend * base
    result = torch.where(wavelength > old_length / low, stretched, base)
    between = (wavelength <= old_length / low) & (wavelength >= old_length / high)
    return torch.where(between, blended, result)


def _yarn(base: torch.Tensor, scaling: Mapping[str, Any], head_dim: int, theta: float) -> torch.Tensor:
    """YaRN (Peng et al., arXiv 2309.00071): slow pairs are stretched by `factor`, fast ones kept, a ramp between."""
    old_length = scaling["original_max_position_embeddings"]

    def pair_that_turns(times: float) -> float:
        return head_dim * math.log(old_length / (times * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair_that_turns(scaling.get("beta_fast") or 32), pair_that_turns(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    width = last - first or 0.001
    stretched_share = ((torch.arange(head_dim // 2).float() - first) / width).clamp(0, 1)
    return base / scaling["factor"] * stretched_share + base * (1 - stretched_share)


def _yarn_scale(factor: float, scale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


class RotaryTable:
    """Cosines and sines for every position, made once; the sines carry the sign of the half that is swapped in."""

    def __init__(
        self, head_dim: int, theta: float, scaling: Mapping[str, Any] | None, positions: int, device: torch.device
    ) -> None:
        angles = torch.arange(positions).float()[:, None] * inverse_frequencies(head_dim, theta, scaling)
        cos, sin = angles.cos(), angles.sin()
        if (factor := attention_factor(scaling)) != 1.0:
            cos, sin = cos * factor, sin * factor
        self.cos = torch.cat([cos, cos], -1).to(device)  # [positions, head_dim], float32
        self.sin = torch.cat([-sin, sin], -1).to(device)
        self._half = head_dim // 2

    @property
    def num_positions(self) -> int:
        """Positions that the table knows."""
        return self.cos.shape[0]

    def at(self, positions: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines `[n, 1, head_dim]` of positions `[n]`, for `rotate`."""
        cos, sin = self.cos.index_select(0, positions), self.sin.index_select(0, positions)
        return cos.to(dtype).unsqueeze(1), sin.to(dtype).unsqueeze(1)

    def rotate(self, heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Rotate `[n, heads, head_dim]`."""
        return torch.addcmul(heads * cos, heads.roll(self._half, -1), sin)
