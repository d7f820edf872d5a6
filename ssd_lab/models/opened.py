"""What is known of a model before its weights are read; they take no memory until somebody needs them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from ssd_lab.models.config import ModelConfig
from ssd_lab.models.decoder import Decoder
from ssd_lab.models.files.checkpoint import open_checkpoint, read_shape
from ssd_lab.models.inflate.geometry import find_geometry
from ssd_lab.models.inflate.plan import plan_inflation
from ssd_lab.models.inflate.source import split_inflated
from ssd_lab.models.loader import LoadedModel, load_model, resolve_dtype


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
    if inflated is None:
        return read_shape(source)
    geometry, small = inflated
    shape = find_geometry(geometry)
    return plan_inflation(_config_of(small), shape.config, shape.name).config


class OpenedModel(LoadedModel):
    """Config and tokenizer are here; the weights are read when `decoder` is first asked for.

    So is a draft in the target's process when it works in another one, which reads it there. Takes what `load_model`
    takes and raises as that does: what is wrong with the weights themselves when they are read.
    """

    def __init__(
        self, source: str | Path, *, dtype: str, device: str, bitwise: bool, kernels: str, progress: bool
    ) -> None:
        inflated = split_inflated(str(source))
        checkpoint = open_checkpoint(source if inflated is None else inflated[1])
        shape = shape_of(str(source), dtype=dtype, device=torch.device(device))
        vars(self).update(  # the fields of a frozen class
            config=shape.config,
            tokenizer=checkpoint.tokenizer,
            source=str(source),
            dtype=shape.dtype,
            _options={"dtype": dtype, "device": device, "bitwise": bitwise, "kernels": kernels, "progress": progress},
        )

    @property
    def is_read(self) -> bool:
        """Are the weights here?"""
        return "decoder" in vars(self)

    @cached_property
    def decoder(self) -> Decoder:
        """The weights, read now if nobody has asked for them before."""
        return load_model(str(self.source), **vars(self)["_options"]).decoder

    def __repr__(self) -> str:
        return f"OpenedModel({self.source!r}, {'read' if self.is_read else 'not read'})"
