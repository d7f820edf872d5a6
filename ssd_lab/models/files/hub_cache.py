"""The hub's cache on disk: `models--owner--name/{refs,snapshots,blobs}`; a snapshot's files are links to blobs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.files.weight_files import INDEX, SHARD, shards_named_in
from ssd_lab.settings import Settings

_PREFIX, _SEPARATOR = "models--", "--"
ANY_WEIGHTS = ("*.safetensors", "*.bin")


def cache_folder(settings: Settings) -> Path:
    """SSD_HF_CACHE, else the hub's own default."""
    if settings.hf_cache is not None:
        return settings.hf_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def find_snapshot(repository: str, cache: Path, weights: Sequence[str] = ANY_WEIGHTS) -> Path | None:
    """The snapshot of `owner/name` to load: that of `refs/main` if it is whole, else the newest whole one."""
    return snapshot_in(cache / _folder_name(repository), weights)


def main_snapshot(repository: str, cache: Path) -> Path | None:
    """The snapshot that stands for the repository, whole or not: that of `refs/main`; without such, the newest."""
    folder = cache / _folder_name(repository)
    first = next(iter(_snapshots(folder)), None)
    main = _main(folder)
    return first if first is not None and main in (None, first.name) else None


def snapshot_in(folder: Path, weights: Sequence[str] = ANY_WEIGHTS) -> Path | None:
    """What `find_snapshot` finds, for a repository's folder in the cache."""
    return next((snapshot for snapshot in _snapshots(folder) if not missing_files(snapshot, weights)), None)


def missing_files(snapshot: Path, weights: Sequence[str] = ANY_WEIGHTS) -> list[str]:
    """What a checkpoint's folder lacks: a link whose blob is gone counts as missing.

    weights: patterns of what will do.
    """
    missing = [] if (snapshot / "config.json").is_file() else ["config.json"]
    index = snapshot / INDEX
    if index.is_file():
        try:
            return missing + [shard for shard in shards_named_in(index) if not (snapshot / shard).is_file()]
        except ModelLoadError:
            return [*missing, f"{INDEX} (damaged)"]
    found = [file for pattern in weights for file in snapshot.glob(pattern) if file.is_file()]
    if not found:
        return [*missing, "weights (*.safetensors)"]
    return missing if any(SHARD.search(file.name) is None for file in found) else [*missing, INDEX]


def what_lacks(repository: str, cache: Path, weights: Sequence[str] = ANY_WEIGHTS) -> str:
    """Why `find_snapshot` found none, in words."""
    folder = cache / _folder_name(repository)
    snapshots = _snapshots(folder)
    if snapshots:
        return (
            f"its snapshot {snapshots[0].name[:8]} lacks {', '.join(missing_files(snapshots[0], weights)) or 'nothing'}"
        )
    if not folder.is_dir():
        nested = cache / "hub"
        hint = f" ({nested} may be the cache that is meant)" if nested.is_dir() else ""
        return f"{cache} has no {folder.name}{hint}"
    return f"{folder} has no snapshot"


def _folder_name(repository: str) -> str:
    return repository if repository.startswith(_PREFIX) else _PREFIX + repository.replace("/", _SEPARATOR)


def _snapshots(folder: Path) -> list[Path]:
    """That of `refs/main` first, then the others, newest first."""
    main = _main(folder)
    snapshots = folder / "snapshots"
    found = [path for path in snapshots.iterdir() if path.is_dir()] if snapshots.is_dir() else []
    return sorted(found, key=lambda path: (path.name != main, -path.stat().st_mtime))


def _main(folder: Path) -> str | None:
    """The commit that `refs/main` names."""
    reference = folder / "refs" / "main"
    return reference.read_text(encoding="utf-8").strip() if reference.is_file() else None
