"""Make a decoder from named tensors, as its family makes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ssd_lab.kernels.backend import choose_kernels
from ssd_lab.kernels.interface import Kernels
from ssd_lab.kernels.row_padding import ANY_ROWS
from ssd_lab.kernels.row_probe import make_row_invariant
from ssd_lab.models.blocks import Parts
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.decoder import Decoder
from ssd_lab.models.families import FAMILIES
from ssd_lab.models.files.weights import NoWeights, TensorReader, Weights
from ssd_lab.models.group import Group
from ssd_lab.models.share import shared

IGNORED = ("rotary_emb.inv_freq",)  # tables of old checkpoints


def assemble(
    config: ModelConfig,
    weights: Weights,
    *,
    dtype: torch.dtype,
    device: torch.device,
    source: str,
    bitwise: bool = True,
    pack: bool = True,
    kernels: str = "auto",
    num_tokens: int | None = None,
    on_layer: Callable[[], None] = lambda: None,
    group: Group | None = None,
) -> Decoder:
    """A decoder of this shape. Raises ModelLoadError for missing, left-over or misshapen tensors.

    bitwise: pad rows so that results do not depend on their number (see `kernels/row_padding.py`). pack: see `Linear`.
    kernels: see `choose_kernels`. num_tokens: see `Decoder`. on_layer: called when a layer is there.
    group: the ranks that share the model; what is made is this one's part.
    """
    family = FAMILIES.of(config.model_type)
    if group is not None:
        config, weights = shared(config, weights, family.cuts, group, source)
    tensors = TensorReader(weights, dtype, device, source)
    parts = Parts(config, tensors, choose_kernels(device, kernels), pack, num_tokens, on_layer, group)
    decoder = family.make_decoder(parts)
    tensors.check_all_used(IGNORED)
    decoder.row_padding = make_row_invariant(decoder.linears()) if bitwise else ANY_ROWS
    return decoder


def without_weights(config: ModelConfig, kernels: Kernels[Any], dtype: torch.dtype) -> Decoder:
    """A decoder of this shape on the device `meta`: its forwards take no memory, and compute nothing."""
    decoder = FAMILIES.of(config.model_type).make_decoder(Parts(config, NoWeights(dtype), kernels, pack=False))
    decoder.row_padding = ANY_ROWS  # as products by our kernels are computed
    return decoder
