"""A hub id as a folder: what the cache holds whole is taken as it is, everything else is asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.files.hub_cache import cache_folder, find_snapshot, main_snapshot, missing_files, what_lacks
from ssd_lab.settings import settings

HUB_FILES = ("*.json", "*.safetensors", "*.jinja")
TOKENIZER = "tokenizer.json"

logger = logging.getLogger(__name__)


def from_hub(name: str, patterns: Sequence[str] = HUB_FILES, *, others: Sequence[str] = (TOKENIZER,)) -> Path:
    """The snapshot of a hub id: from the local cache if it is whole there, else downloaded (files like `patterns`).

    others: files that belong to a whole snapshot where the repository has them at all. Where the hub is out of reach
    an older whole snapshot will do. Raises ModelLoadError that says what the cache lacks and why the hub did not give
    it.
    """
    cache = cache_folder(settings())
    weights = [pattern for pattern in patterns if pattern not in ("*.json", "*.jinja")]
    current = main_snapshot(name, cache)
    if current is not None and not missing_files(current, weights) and all((current / f).is_file() for f in others):
        return current
    try:
        return _downloaded(name, patterns, weights)
    except ModelLoadError as error:
        fallback = find_snapshot(name, cache, weights)
        if fallback is None:
            raise
        logger.warning("%s; its snapshot %s, which was downloaded before, is taken", error, fallback.name[:8])
        return fallback


def _downloaded(name: str, patterns: Sequence[str], weights: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    chosen, cache = settings().hf_cache, cache_folder(settings())
    try:
        folder = Path(snapshot_download(name, allow_patterns=list(patterns), cache_dir=chosen))
    except HFValidationError as error:
        raise ModelLoadError(f"{name!r} is neither a folder, nor a .gguf file, nor a hub id (owner/name)") from error
    except Exception as error:  # network, rights, unknown name: the hub client's errors share no base
        raise ModelLoadError(
            f"{name!r} is no folder here, and the hub did not give it: {_why(error)}. In the cache: "
            f"{what_lacks(name, cache, weights)}"
        ) from error
    if missing := missing_files(folder, weights):
        raise ModelLoadError(
            f"{name!r} was asked for at the hub, and {folder} still lacks {', '.join(missing)}: {_offline_or_absent()}"
        )
    return folder


def _why(error: Exception) -> str:
    """What the hub's client met, and what to do about it."""
    from huggingface_hub import errors

    said = " ".join(str(error).split())
    if _is_offline() or isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so nothing is downloaded; unset it, or download the model elsewhere first"
    if isinstance(error, errors.GatedRepoError):
        return "it is gated; ask for access on its page and log in (`hf auth login`)"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such repository, or it is private; check the name, or log in (`hf auth login`)"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "the hub cannot be reached from here; check the network, or give a local folder"
    return f"{type(error).__name__}: {said[:300]}; check the network, or give a local folder"


def _offline_or_absent() -> str:
    if _is_offline():
        return "HF_HUB_OFFLINE is set, so nothing is downloaded; unset it, or give a local folder"
    return (
        "the repository has no such files (weights that are pickled or in GGUF only are not taken from the hub), or "
        "the hub was out of reach; give a checkpoint in safetensors, or a local folder"
    )


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
