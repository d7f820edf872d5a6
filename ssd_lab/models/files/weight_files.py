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
        return [folder / shard for shard in _whole_shards(folder)]
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    raise ModelLoadError(f"{folder} has neither {SINGLE} nor {INDEX}: {what_is_there(folder, SINGLE)}")


def is_lfs_pointer(file: Path) -> bool:
    """Was the file cloned without Git LFS, so that only a few lines stand for it?"""
    try:
        with file.open("rb") as opened:
            return opened.read(len(_LFS_POINTER)) == _LFS_POINTER
    except OSError:
        return False


def shards_named_in(index: Path) -> list[str]:
    """The files that an index names, in order. Raises ModelLoadError if it is damaged."""
    if is_lfs_pointer(index):
        raise ModelLoadError(f"{index} is a pointer that Git LFS left: run `git lfs pull` in {index.parent}")
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelLoadError(f"{index} is damaged ({error}): download it again") from error


def what_is_there(folder: Path, wanted: str) -> str:
    """What a folder without the file `wanted` holds, in words, with what to do about it."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if (folder / wanted).is_symlink():
        return f"{wanted} is a link to a file that is gone; download the checkpoint again"
    shards = [name for name in names if SHARD.search(name) and name.endswith(".safetensors")]
    if shards and INDEX not in names:
        return f"it has {shards[0]} and no index that says what belongs to it; download the checkpoint again"
    if "adapter_config.json" in names or "adapter_model.safetensors" in names:
        return "it is an adapter (LoRA); merge it into its base model (peft: merge_and_unload) and save that"
    if gguf := [name for name in names if name.endswith(".gguf")]:
        return f"it holds GGUF files; give the path of one, such as {folder / gguf[0]}"
    if "snapshots" in names:
        return "it is a folder of the hub's cache; give the hub id, or the folder of a snapshot in it"
    if "params.json" in names:
        return "it is in Meta's or Mistral's own format; take the checkpoint of transformers"
    if pickled := [name for name in names if re.search(r"^pytorch_model.*\.bin|\.(pth|pt|ckpt)$", name)]:
        return (
            f"its weights are pickled ({pickled[0]}), and only safetensors are read; save it again with transformers "
            "(AutoModelForCausalLM.from_pretrained(...).save_pretrained(...))"
        )
    if others := [name for name in names if name.endswith(".safetensors")]:
        return f"it has {', '.join(others[:3])}; a checkpoint of transformers is expected"
    if "config.json" in names:
        return "its weights were not downloaded; only safetensors checkpoints are read"
    return "give a checkpoint folder, a .gguf file or a hub id"


def _whole_shards(folder: Path) -> list[str]:
    shards = shards_named_in(folder / INDEX)
    missing = [shard for shard in shards if not (folder / shard).exists()]
    if not missing:
        return shards
    links = [shard for shard in missing if (folder / shard).is_symlink()]
    broken = f" ({', '.join(links)}: a link to a file that is gone)" if links else ""
    raise ModelLoadError(
        f"{folder} lacks the weight files {', '.join(missing)} that its index names{broken}: download the checkpoint "
        "again"
    )
