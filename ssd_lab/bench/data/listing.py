"""What prompts there are on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ssd_lab.bench.data.files import read_rows
from ssd_lab.bench.data.load import prepared_file
from ssd_lab.bench.data.registry import DATASETS
from ssd_lab.settings import settings


def list_datasets(folder: Path | None = None) -> list[dict[str, Any]]:
    """One dictionary a set: its source, licence, and the rows that are bundled and prepared.

    folder: prepared sets; None takes SSD_DATASET_DIR. Raises DatasetError for a damaged file.
    """
    searched = folder if folder is not None else settings().dataset_dir
    rows = []
    for dataset in DATASETS.values():
        file = None if searched is None else prepared_file(dataset.name, searched)
        rows.append(
            {
                "name": dataset.name,
                "title": dataset.title,
                "source": dataset.repo,
                "split": dataset.split,
                "licence": dataset.licence,
                "bundled_rows": dataset.bundled_rows,
                "not_bundled": dataset.not_bundled or None,
                "prepared_rows": 0 if file is None else sum(1 for _ in read_rows(file)),
                "prepared_file": None if file is None else str(file),
            }
        )
    return rows
