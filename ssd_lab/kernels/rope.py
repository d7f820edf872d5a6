"""Rotary position embeddings (Su et al., arXiv 2104.09864), with the scalings that checkpoints ask for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from ssd_lab.errors import ModelLoadError


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
        if scaling is not None and kind == "divisors":  # how GGUF files write any scaling
            return base / torch.tensor(scaling["divisors"], dtype=torch.float32)
    except KeyError as error:
        raise ModelLoadError(f"rope scaling {kind!r} needs the entry {error} in the config") from error
    raise ModelLoadError(f"rope scaling {kind!r} is not supported: default, linear and llama3 are")


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


class RotaryTable:
    """Cosines and sines for every position, made once; the sines carry the sign of the half that is swapped in."""

    def __init__(
        self, head_dim: int, theta: float, scaling: Mapping[str, Any] | None, positions: int, device: torch.device
    ) -> None:
        angles = torch.arange(positions).float()[:, None] * inverse_frequencies(head_dim, theta, scaling)
        self.cos = torch.cat([angles.cos(), angles.cos()], -1).to(device)  # [positions, head_dim], float32
        self.sin = torch.cat([-angles.sin(), angles.sin()], -1).to(device)
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
