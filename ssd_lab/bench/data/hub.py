"""Files of the hub's datasets, through the hub's own client and its cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssd_lab.bench.data.registry import Dataset
from ssd_lab.errors import DatasetError
from ssd_lab.settings import settings


def download(dataset: Dataset, *, progress: bool = False) -> list[Path]:
    """The source's files of a set, in order; only those are downloaded, and only once. Raises DatasetError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        """The client's own bar, where it is wanted."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "disable": not progress})

    try:
        folder = snapshot_download(
            dataset.repo,
            repo_type="dataset",
            allow_patterns=list(dataset.files),
            cache_dir=settings().hf_cache,
            tqdm_class=Bar,
        )
    except Exception as error:  # network, rights, unknown name: the hub client's errors share no base
        raise DatasetError(
            f"{dataset.name} could not be downloaded from the hub's {dataset.repo} ({type(error).__name__}: {error}): "
            f"check the connection, or give files at hand with `--from FOLDER`{_what_is_here(dataset)}"
        ) from error
    files = matching(dataset, Path(folder))
    if not files:
        raise DatasetError(
            f"the hub's {dataset.repo} has no {' or '.join(dataset.files)} (any more?): give files at hand with --from"
        )
    return files


def matching(dataset: Dataset, folder: Path) -> list[Path]:
    """The files of a folder that is laid out as the source's repository, in order."""
    return [file for pattern in dataset.files for file in sorted(folder.glob(pattern)) if file.is_file()]


def _what_is_here(dataset: Dataset) -> str:
    return (
        f"; {dataset.bundled_rows} rows came with the package and need no preparation" if dataset.bundled_rows else ""
    )
