"""A model by name: a hub id, a folder, or a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.assemble import assemble
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.decoder import Decoder
from ssd_lab.models.gguf_file import GgufFile
from ssd_lab.models.tokenizer import Tokenizer
from ssd_lab.models.weights import MappingWeights, SafetensorsWeights, Weights
from ssd_lab.progress import progress_bar

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja"]


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run. source: where it can be loaded again (None for one made in memory)."""

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
    progress: bool = False,
) -> LoadedModel:
    """Load weights and tokenizer; bitwise, pack: see `assemble`.

    Raises ModelLoadError that says what is missing or wrong and what to do.
    """
    chosen = resolve_dtype(dtype, device)
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelLoadError(f"{path} does not exist: give the path of a .gguf file")
        file = GgufFile(path)
        return _load(file.config, file, file.tokenizer(), str(source), chosen, device, bitwise, pack, progress)
    folder = path if path.is_dir() else _from_hub(str(source))
    config = read_config(folder)
    has_tokenizer = (folder / "tokenizer.json").exists()
    tokenizer = Tokenizer.from_folder(folder, config.eos_token_ids) if has_tokenizer else None
    return _load(config, SafetensorsWeights(folder), tokenizer, str(source), chosen, device, bitwise, pack, progress)


def from_tensors(
    config: ModelConfig,
    tensors: Mapping[str, torch.Tensor],
    *,
    tokenizer: Tokenizer | None = None,
    dtype: str = "auto",
    device: str = "cpu",
    bitwise: bool = True,
) -> LoadedModel:
    """A model from tensors in memory, named as in a Hugging Face checkpoint."""
    weights = MappingWeights(tensors)
    model = _load(
        config, weights, tokenizer, "tensors in memory", resolve_dtype(dtype, device), device, bitwise, True, False
    )
    return LoadedModel(model.config, model.decoder, model.tokenizer, None, model.dtype)


def read_config(folder: Path) -> ModelConfig:
    """The config.json of a checkpoint folder."""
    file = folder / "config.json"
    if not file.exists():
        raise ModelLoadError(f"{folder} has no config.json: give a checkpoint folder, a .gguf file or a hub id")
    try:
        return ModelConfig.from_hf(json.loads(file.read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise ModelLoadError(f"{file} is damaged ({error}): download it again") from error


def _load(
    config: ModelConfig,
    weights: Weights,
    tokenizer: Tokenizer | None,
    source: str,
    dtype: torch.dtype,
    device: str,
    bitwise: bool,
    pack: bool,
    progress: bool,
) -> LoadedModel:
    with progress_bar(config.num_layers, f"loading {Path(source).name}", "layer", enabled=progress) as bar:
        decoder = assemble(
            config,
            weights,
            dtype=dtype,
            device=torch.device(device),
            source=source,
            bitwise=bitwise,
            pack=pack,
            on_layer=lambda: bar.update(1),
        )
    return LoadedModel(config, decoder, tokenizer, source, dtype)


def _from_hub(name: str) -> Path:
    """The snapshot of a hub id: from the local cache if it is whole there, else downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    from ssd_lab.settings import settings  # here, because models also load where pydantic is not installed

    cache = settings().hf_cache
    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES, cache_dir=cache, local_files_only=True))
    except HFValidationError as error:
        raise ModelLoadError(f"{name!r} is neither a folder, nor a .gguf file, nor a hub id (owner/name)") from error
    except (OSError, ValueError):
        pass  # not in the cache: ask the hub
    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES, cache_dir=cache))
    except Exception as error:  # network, rights, unknown name: the hub client's errors share no base
        raise ModelLoadError(
            f"{name!r} is no folder here, and the hub did not give it ({type(error).__name__}: {error}): "
            "check the name, log in for gated models, or give a local folder"
        ) from error
