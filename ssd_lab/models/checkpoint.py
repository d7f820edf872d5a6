"""What a model is made from: a config, named tensors and a tokenizer, out of a folder, a GGUF file or the hub."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.gguf_file import GgufFile
from ssd_lab.models.tokenizer import Tokenizer
from ssd_lab.models.tokenizer_folder import generation_end_ids
from ssd_lab.models.weights import SafetensorsWeights, Weights

HUB_FILES = ["*.json", "*.safetensors", "*.jinja"]


@dataclass(frozen=True)
class Checkpoint:
    """Opened, and nothing read yet but the config and the tokenizer."""

    config: ModelConfig
    weights: Weights
    tokenizer: Tokenizer | None


def open_checkpoint(source: str | Path) -> Checkpoint:
    """Open a folder, a .gguf file or a hub id. Raises ModelLoadError that says what is missing or wrong."""
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelLoadError(f"{path} does not exist: give the path of a .gguf file")
        file = GgufFile(path)
        return Checkpoint(file.config, file, file.tokenizer())
    folder = path if path.is_dir() else from_hub(str(source))
    config = read_config(folder)
    has_tokenizer = (folder / "tokenizer.json").exists()
    tokenizer = Tokenizer.from_folder(folder, config.eos_token_ids) if has_tokenizer else None
    return Checkpoint(config, SafetensorsWeights(folder), tokenizer)


def read_config(folder: Path) -> ModelConfig:
    """The config.json of a checkpoint folder, with the end tokens of generation_config.json."""
    file = folder / "config.json"
    if not file.exists():
        raise ModelLoadError(f"{folder} has no config.json: give a checkpoint folder, a .gguf file or a hub id")
    try:
        config = ModelConfig.from_hf(json.loads(file.read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise ModelLoadError(f"{file} is damaged ({error}): download it again") from error
    ends = set(config.eos_token_ids) | set(generation_end_ids(folder))
    return dataclasses.replace(config, eos_token_ids=tuple(sorted(ends)))


def from_hub(name: str, patterns: Sequence[str] = HUB_FILES) -> Path:
    """The snapshot of a hub id: from the local cache if it is whole there, else downloaded (files like `patterns`)."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    from ssd_lab.settings import settings  # here, because models also load where pydantic is not installed

    cache = settings().hf_cache
    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns), cache_dir=cache, local_files_only=True))
    except HFValidationError as error:
        raise ModelLoadError(f"{name!r} is neither a folder, nor a .gguf file, nor a hub id (owner/name)") from error
    except (OSError, ValueError):
        pass  # not in the cache: ask the hub
    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns), cache_dir=cache))
    except Exception as error:  # network, rights, unknown name: the hub client's errors share no base
        raise ModelLoadError(
            f"{name!r} is no folder here, and the hub did not give it ({type(error).__name__}: {error}): "
            "check the name, log in for gated models, or give a local folder"
        ) from error
