"""What a model is made from: a config, named tensors and a tokenizer, out of a folder, a GGUF file or the hub."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from ssd_lab import demo
from ssd_lab.errors import ModelLoadError
from ssd_lab.models.config import ModelConfig
from ssd_lab.models.files.config_json import config_from_json
from ssd_lab.models.files.hub import from_hub
from ssd_lab.models.files.hub_cache import cache_folder, find_snapshot
from ssd_lab.models.files.json_file import read_json
from ssd_lab.models.files.weight_files import what_is_there
from ssd_lab.models.files.weights import SafetensorsWeights, Weights
from ssd_lab.models.gguf.file import GgufFile
from ssd_lab.models.text.tokenizer import Tokenizer
from ssd_lab.models.text.tokenizer_folder import generation_end_ids
from ssd_lab.settings import settings


@dataclass(frozen=True)
class Checkpoint:
    """Opened, and nothing read yet but the config and the tokenizer."""

    config: ModelConfig
    weights: Weights
    tokenizer: Tokenizer | None


def open_checkpoint(source: str | Path) -> Checkpoint:
    """Open a folder, a .gguf file, a hub id or a bundled model (`demo.NAMED`).

    Raises ModelLoadError that says what is missing or wrong.
    """
    place = locate(source)
    if place.is_file():
        file = GgufFile(place)
        return Checkpoint(file.config, file, file.tokenizer())
    config = read_config(place)
    weights = SafetensorsWeights(place)
    weights.check_types()
    has_tokenizer = (place / "tokenizer.json").exists()
    tokenizer = Tokenizer.from_folder(place, config.eos_token_ids) if has_tokenizer else None
    return Checkpoint(config, weights, tokenizer)


def read_shape(source: str | Path) -> ModelConfig:
    """The config of what `open_checkpoint` opens; errors as there."""
    place = locate(source)
    return GgufFile(place).config if place.is_file() else read_config(place)


def locate(source: str | Path) -> Path:
    """The folder or .gguf file of this name; a hub id's is its snapshot, downloaded if need be.

    Raises ModelLoadError that says what the name was taken for.
    """
    path = demo.NAMED.get(str(source)) or Path(source).expanduser()
    if path.is_dir() or (path.suffix == ".gguf" and path.is_file()):
        return path
    if path.suffix == ".gguf":
        raise ModelLoadError(f"{path} does not exist: give the path of a .gguf file")
    if path.is_file():
        raise ModelLoadError(f"{path} is a file: give the checkpoint's folder ({path.parent}), or a .gguf file")
    if isinstance(source, Path) or str(source).startswith(("/", "./", "../", "~")):
        raise ModelLoadError(f"the folder {path} does not exist: give a folder, a .gguf file or a hub id (owner/name)")
    return from_hub(str(source))


def is_here(source: str | Path) -> bool:
    """Is it on this machine, so that nothing would be asked of the hub?"""
    here = str(source) in demo.NAMED or Path(source).expanduser().exists()
    return here or find_snapshot(str(source), cache_folder(settings())) is not None


def read_config(folder: Path) -> ModelConfig:
    """The config.json of a checkpoint folder, with the end tokens of generation_config.json."""
    if not (folder / "config.json").exists():
        raise ModelLoadError(f"{folder} has no config.json: {what_is_there(folder, 'config.json')}")
    config = config_from_json(read_json(folder / "config.json"))
    ends = set(config.eos_token_ids) | set(generation_end_ids(folder))
    return dataclasses.replace(config, eos_token_ids=tuple(sorted(ends)))
