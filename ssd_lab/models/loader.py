"""A model by name: a hub id, a folder, a GGUF file, or a small model inflated to a published shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ssd_lab.common.device_guard import current
from ssd_lab.common.out_of_memory import explain_out_of_memory
from ssd_lab.common.progress import progress_bar
from ssd_lab.errors import ConfigError, ModelLoadError
from ssd_lab.models.assemble import assemble
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.decoder import Decoder
from ssd_lab.models.eagle3.known import is_head
from ssd_lab.models.files.checkpoint import open_checkpoint
from ssd_lab.models.files.weights import MappingWeights, Weights
from ssd_lab.models.group import Group
from ssd_lab.models.inflate.geometry import Geometry
from ssd_lab.models.inflate.source import InflatedSource, inflated_source, open_inflated, split_inflated
from ssd_lab.models.inflate.weights import InflatedWeights
from ssd_lab.models.text.tokenizer import Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run, or one rank's part of it (`decoder.group`). source: where it can be loaded again (None for
    one made in memory).
    """

    config: ModelConfig
    decoder: Decoder
    tokenizer: Tokenizer | None
    source: str | None
    dtype: torch.dtype


def resolve_dtype(name: str, device: str | torch.device) -> torch.dtype:
    """`auto`: bfloat16 on CUDA and on CPUs that multiply it natively, else float32. Raises ModelLoadError for other
    names.
    """
    if name in DTYPES:
        return DTYPES[name]
    if name != "auto":
        raise ModelLoadError(f"dtype {name!r} is not known: auto, {', '.join(DTYPES)} are")
    if torch.device(device).type != "cpu":
        return torch.bfloat16
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(check() for name in checks if (check := getattr(torch.cpu, name, None)) is not None)
    return torch.bfloat16 if native else torch.float32


def load_model(
    source: str | Path,
    *,
    dtype: str = "auto",
    device: str = "cpu",
    bitwise: bool = True,
    pack: bool = True,
    kernels: str = "auto",
    progress: bool = False,
    group: Group | None = None,
) -> LoadedModel:
    """Load weights and tokenizer; bitwise, pack, kernels, group: see `assemble`.

    source: a folder, a .gguf file, a hub id, or `inflated:GEOMETRY:SOURCE` (see `load_inflated`).

    Raises ModelLoadError that says what is missing or wrong and what to do.
    """
    loading = _Loading(dtype, device, bitwise, pack, kernels, progress, group)
    inflated = split_inflated(str(source))
    if inflated is not None:
        return loading.inflated(open_inflated(*inflated), str(source), seed=0)
    if is_head(source):
        raise ModelLoadError(
            f"{source} is an EAGLE3 head and no model of its own: it drafts with the strategy eagle3 and head={source} "
            f"(-s eagle3 --set head={source})"
        )
    opened = open_checkpoint(source)
    return loading.load(opened.config, opened.weights, opened.tokenizer, str(source))


def load_inflated(
    geometry: str | Geometry,
    source: str | Path,
    *,
    dtype: str = "auto",
    device: str = "cpu",
    seed: int = 0,
    bitwise: bool = True,
    pack: bool = True,
    kernels: str = "auto",
    progress: bool = False,
) -> LoadedModel:
    """A model of a published shape that computes the function of a small one, made in memory, tensor by tensor.

    geometry: a name of `models/inflate/geometry.py`. source: `bundled-target`, `bundled-draft`, a folder, a .gguf file
    or a hub id; its tokenizer is kept. seed: of the noise in weights that the small model does not determine. bitwise,
    pack, kernels: see `assemble`. Raises ModelLoadError if the small model does not fit; docs/guides/full-size.md
    says what is exact.
    """
    loading = _Loading(dtype, device, bitwise, pack, kernels, progress)
    opened = open_inflated(geometry, source)
    model = loading.inflated(opened, inflated_source(opened.geometry.name, source), seed=seed)
    if isinstance(geometry, str) and seed == 0:
        return model
    return replace(model, source=None)  # its name alone would not make it again


def from_tensors(
    config: ModelConfig,
    tensors: Mapping[str, torch.Tensor],
    *,
    tokenizer: Tokenizer | None = None,
    dtype: str = "auto",
    device: str = "cpu",
    bitwise: bool = True,
    pack: bool = True,
) -> LoadedModel:
    """A model from tensors in memory, named as in a Hugging Face checkpoint; bitwise, pack: see `assemble`."""
    loading = _Loading(dtype, device, bitwise, pack)
    return replace(loading.load(config, MappingWeights(tensors), tokenizer, "tensors in memory"), source=None)


@dataclass(frozen=True)
class _Loading:
    """How to load: the arguments of `load_model`."""

    dtype: str
    device: str
    bitwise: bool
    pack: bool
    kernels: str = "auto"
    progress: bool = False
    group: Group | None = None

    def inflated(self, opened: InflatedSource, source: str, *, seed: int) -> LoadedModel:
        dtype = resolve_dtype(self.dtype, self.device)
        device = torch.device(self.device)
        weights = InflatedWeights(opened.plan, opened.small.weights, dtype=dtype, device=device, seed=seed)
        return self.load(opened.plan.config, weights, opened.small.tokenizer, source)

    def load(self, config: ModelConfig, weights: Weights, tokenizer: Tokenizer | None, source: str) -> LoadedModel:
        name, dtype = Path(source).name, resolve_dtype(self.dtype, self.device)
        no_room = explain_out_of_memory(
            f"loading the weights of {name}",
            ConfigError,
            device=self.device,
            wanted_bytes=config.num_parameters * dtype.itemsize,
            change="take a smaller model, dtype bfloat16, or another device",
        )
        shown = progress_bar(config.num_layers, f"loading {name}", "layer", enabled=self.progress)
        with current(self.device), no_room, shown as bar:
            decoder = assemble(
                config,
                weights,
                dtype=dtype,
                device=torch.device(self.device),
                source=source,
                bitwise=self.bitwise,
                pack=self.pack,
                kernels=self.kernels,
                num_tokens=_num_tokens(config, tokenizer),
                on_layer=lambda: bar.update(1),
                group=self.group,
            )
        return LoadedModel(config if self.group is None else decoder.config, decoder, tokenizer, source, dtype)


def _num_tokens(config: ModelConfig, tokenizer: Tokenizer | None) -> int | None:
    """Ids that can be produced: the tokenizer's, and end tokens that it may not know; None: all."""
    if tokenizer is None:
        return None
    return max(tokenizer.num_ids, *(end + 1 for end in (*config.eos_token_ids, *tokenizer.eos_token_ids)), 0)
