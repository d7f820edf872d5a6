"""A JSON object from a file of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ssd_lab.errors import ModelLoadError
from ssd_lab.models.files.weight_files import is_lfs_pointer


def read_json(file: Path) -> dict[str, Any]:
    """The object; an empty one if there is no such file. Raises ModelLoadError if it is damaged or holds another."""
    if not file.exists():
        return {}
    if is_lfs_pointer(file):
        raise ModelLoadError(f"{file} is a pointer that Git LFS left: run `git lfs pull` in {file.parent}")
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelLoadError(f"{file} is damaged ({error}): download it again") from error
    if not isinstance(document, dict):
        raise ModelLoadError(f"{file} holds no JSON object: download it again")
    return document
