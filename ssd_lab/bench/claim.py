"""Folders of reports: what is measured under some settings is never mixed with what others gave."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssd_lab.errors import ConfigError

SETTINGS = "settings.json"


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """The folder, made when missing, is of these settings: from now on, or since an earlier run.

    Raises ConfigError for a folder that cannot be used, or is of other settings.
    """
    note, asked = folder / SETTINGS, json.loads(json.dumps(dict(settings), default=str))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = json.loads(note.read_text(encoding="utf-8")) if note.exists() else asked
        if held == asked:
            note.write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")  # fails here, before the work
    except (OSError, ValueError) as error:
        raise ConfigError(f"the report cannot be written to {folder} ({error}): name another folder") from error
    other = sorted(name for name in held.keys() | asked.keys() if held.get(name) != asked.get(name))
    if other:
        shown = ", ".join(f"{name} {held.get(name)} there and {asked.get(name)} here" for name in other)
        raise ConfigError(
            f"{folder} holds a report of other settings ({shown}): name another folder, or begin anew with --fresh"
        )
