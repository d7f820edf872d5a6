"""Which files of a checkpoint folder hold its weights; where none can be read, what the folder holds instead."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ssd_lab.errors import ModelLoadError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.(safetensors|gguf)$")
_LFS_POINTER = b"version https://git-lfs"


def weight_files(folder: Path) -> list[Path]:
    """The files to read. Raises ModelLoadError that says which are missing, or what is there in their place."""
    if (folder / INDEX).exists():
        return [folder / shard for shard in _shards_of_index(folder)]
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    raise ModelLoadError(f"{folder} has neither {SINGLE} nor {INDEX}: {_what_is_there(folder)}")


def is_lfs_pointer(file: Path) -> bool:
    """Was the file cloned without Git LFS, so that only a few lines stand for it?"""
    try:
        with file.open("rb") as opened:
            return opened.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:
        return False


def _shards_of_index(folder: Path) -> list[str]:
    if is_lfs_pointer(folder / INDEX):
        raise ModelLoadError(f"{folder / INDEX} is a pointer that Git LFS left: run `git lfs pull` in {folder}")
    try:
        shards = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelLoadError(f"{folder / INDEX} is damaged ({error}): download it again") from error
    missing = [shard for shard in shards if not (folder / shard).exists()]
    if missing:
        raise ModelLoadError(
            f"{folder} lacks the weight files {', '.join(missing)} that its index names{_links(folder, missing)}: "
            "download the checkpoint again"
        )
    return shards


def _links(folder: Path, names: list[str]) -> str:
    broken = [name for name in names if (folder / name).is_symlink()]
    return f" ({', '.join(broken)}: a link to a file that is gone)" if broken else ""


def _what_is_there(folder: Path) -> str:
    """In words, with what to do about it."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if _links(folder, [SINGLE]):
        return f"{SINGLE} is a link to a file that is gone; download the checkpoint again"
    if shards := [name for name in names if SHARD.search(name) and name.endswith(".safetensors")]:
        return f"it has {shards[0]} and no index that says what belongs to it; download the checkpoint again"
    if "adapter_config.json" in names or "adapter_model.safetensors" in names:
        return "it is an adapter (LoRA); merge it into its base model (peft: merge_and_unload) and save that"
    if gguf := [name for name in names if name.endswith(".gguf")]:
        return f"it holds GGUF files; give the path of one, such as {folder / gguf[0]}"
    pickled = [name for name in names if re.search(r"^pytorch_model.*\.bin|\.(pth|pt|ckpt)$", name)]
    if pickled:
        return (
            f"its weights are pickled ({pickled[0]}), and only safetensors are read; save it again with transformers "
            "(AutoModelForCausalLM.from_pretrained(...).save_pretrained(...))"
        )
    if others := [name for name in names if name.endswith(".safetensors")]:
        return f"it has {', '.join(others[:3])}; a checkpoint of transformers is expected"
    return "its weights were not downloaded; only safetensors checkpoints are read"
