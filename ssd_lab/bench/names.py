"""What a model is called in a benchmark: sizes and names to hub ids, snapshots in the hub's cache, and folders.

Sizes mean what they mean to the reference system: `--llama --size 8 --draft 1` is Llama-3.1-8B-Instruct with
Llama-3.2-1B-Instruct as its draft.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from ssd_lab import demo
from ssd_lab.errors import ModelLoadError
from ssd_lab.models.files.hub_cache import cache_folder, find_snapshot, snapshot_in, what_lacks
from ssd_lab.models.inflate.source import inflated_source, split_inflated
from ssd_lab.models.names import BUNDLED, EAGLE_HEADS, LLAMA_33
from ssd_lab.settings import Settings

Family = Literal["llama", "qwen"]

SIZES: dict[Family, dict[str, str]] = {
    "llama": {
        "1": "meta-llama/Llama-3.2-1B-Instruct",
        "3": "meta-llama/Llama-3.2-3B-Instruct",
        "8": "meta-llama/Llama-3.1-8B-Instruct",
        "70": "meta-llama/Llama-3.1-70B-Instruct",
    },
    "qwen": {size: f"Qwen/Qwen3-{size}B" for size in ("0.6", "1.7", "4", "8", "14", "32")},
}
DEFAULT_SIZE: dict[str, dict[Family, str]] = {
    "target": {"llama": "70", "qwen": "32"},
    "draft": {"llama": "1", "qwen": "0.6"},
}


def resolve_model(name_or_size: str, *, settings: Settings) -> str:
    """Where a model is: a folder or .gguf file, a snapshot in the hub's cache, else its hub id, to be downloaded.

    name_or_size: a size of Llama in billions of parameters, `bundled` (the target), a folder, a .gguf file, a hub id,
    or `inflated:GEOMETRY:SOURCE`, which stays as it is. Raises ModelLoadError for what is none of these.
    """
    name = _plain(name_or_size)
    if name == BUNDLED:
        return str(demo.TARGET)
    if name in demo.NAMED:
        return str(demo.NAMED[name])
    if split_inflated(name) is not None:
        return name
    local = None if _is_size(name) else _local(name)  # a folder called `8` does not hide the size
    if local is not None:
        return local
    repository = _hub_id(name)
    snapshot = find_snapshot(repository, cache_folder(settings))
    return repository if snapshot is None else str(snapshot)


def require_local(resolved: str, *, settings: Settings) -> str:
    """What `resolve_model` returned, if it is on this machine.

    Raises ModelLoadError that names what is missing and what works here.
    """
    inflated = split_inflated(resolved)
    if inflated is not None:
        geometry, small = inflated
        if small not in demo.NAMED:
            small = require_local(resolve_model(small, settings=settings), settings=settings)
        return inflated_source(geometry, small)
    if Path(resolved).expanduser().exists():
        return resolved
    cache = cache_folder(settings)
    here = [name for name in _known() if find_snapshot(name, cache) is not None]
    working = "`--models bundled`" + (f", or one of {', '.join(here)}" if here else "")
    raise ModelLoadError(
        f"{resolved} is not on this machine: {what_lacks(resolved, cache)}. Download it (`hf download {resolved}`), "
        f"or set SSD_HF_CACHE to the folder that has it. What works here: {working}"
    )


def _plain(name_or_size: str) -> str:
    """A size as it stands in the tables: 8, 8.0, `8b` and `8B` are `8`."""
    text = name_or_size.strip()
    size = re.fullmatch(r"(\d+(?:\.\d+)?)[bB]?", text)
    return f"{float(size[1]):g}" if size else text


def _is_size(name: str) -> bool:
    return re.fullmatch(r"[\d.]+", name) is not None


def _local(name: str) -> str | None:
    """The folder or file of that name, if it is one; a folder of the hub's cache stands for its snapshot."""
    path = Path(name).expanduser()
    if name and path.is_dir():
        snapshot = snapshot_in(path)
        if snapshot is None and (path / "snapshots").is_dir():
            raise ModelLoadError(
                f"{path} is a folder of the hub's cache, and {what_lacks(path.name, path.parent)}: download it again"
            )
        return str(snapshot or path)
    if path.is_file():
        if path.suffix != ".gguf":
            raise ModelLoadError(f"{path} is a file: a model is a folder or a .gguf file")
        return str(path)
    if name.startswith(("/", "./", "../", "~")) or path.suffix == ".gguf" or name.count("/") > 1:
        raise ModelLoadError(f"{path} does not exist: give a folder, a .gguf file, a hub id or a size")
    return None


def _hub_id(name: str) -> str:
    sizes = SIZES["llama"]
    if name in sizes:
        return sizes[name]
    if _is_size(name):
        hint = " (the qwen family has one)" if name in SIZES["qwen"] else ""
        raise ModelLoadError(f"size {name} is none of the llama family{hint}: there are {', '.join(sizes)}")
    for known in _known():
        if name.lower() == known.rpartition("/")[2].lower():
            return known
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ModelLoadError(
            f"{name!r} is neither a size ({', '.join(sizes)}), nor a folder, nor a .gguf file, "
            "nor a hub id (owner/name)"
        )
    return name


def _known() -> list[str]:
    sizes = [name for models in SIZES.values() for name in models.values()]
    return [*sizes, LLAMA_33, *EAGLE_HEADS.values()]
