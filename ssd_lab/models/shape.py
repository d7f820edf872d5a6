"""The shape of a model by name, without its weights: what is known before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ssd_lab.models.config import ModelConfig
from ssd_lab.models.files.checkpoint import read_shape
from ssd_lab.models.inflate.geometry import find_geometry
from ssd_lab.models.inflate.plan import plan_inflation
from ssd_lab.models.inflate.source import small_source, split_inflated
from ssd_lab.models.loader import LoadedModel, resolve_dtype


@dataclass(frozen=True)
class ModelShape:
    """Sizes and the dtype in which a model runs."""

    config: ModelConfig
    dtype: torch.dtype


def shape_of(model: LoadedModel | str | Path, *, dtype: str, device: torch.device) -> ModelShape:
    """Of a loaded model, or of whatever `load_model` takes. Raises ModelLoadError as that does."""
    if isinstance(model, LoadedModel):
        return ModelShape(model.config, model.dtype)
    return ModelShape(_config_of(model), resolve_dtype(dtype, device))


def _config_of(source: str | Path) -> ModelConfig:
    inflated = split_inflated(str(source))
    if inflated is not None:
        geometry, small = inflated
        shape = find_geometry(geometry)
        return plan_inflation(_config_of(small_source(small)), shape.config, shape.name).config
    return read_shape(source)
