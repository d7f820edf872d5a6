"""A model that is opened but not read: what it is, is known; its weights take no memory until somebody needs them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch

from ssd_lab.models.decoder import Decoder
from ssd_lab.models.files.checkpoint import open_checkpoint
from ssd_lab.models.inflate.source import small_source, split_inflated
from ssd_lab.models.loader import LoadedModel, load_model
from ssd_lab.models.shape import shape_of


class OpenedModel(LoadedModel):
    """Config and tokenizer are here; the weights are read when `decoder` is first asked for.

    So is a draft in the target's process when it works in another one, which reads it there. Takes what `load_model`
    takes and raises as that does: what is wrong with the weights themselves when they are read.
    """

    def __init__(
        self, source: str | Path, *, dtype: str, device: str, bitwise: bool, kernels: str, progress: bool
    ) -> None:
        inflated = split_inflated(str(source))
        checkpoint = open_checkpoint(source if inflated is None else small_source(inflated[1]))
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
