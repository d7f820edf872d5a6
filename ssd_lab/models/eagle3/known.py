"""Is a folder an EAGLE3 head? Asked before anything is loaded, so that a head is not taken for a draft model."""

from __future__ import annotations

import json
from pathlib import Path


def is_head(source: object) -> bool:
    """Does the config of this folder describe a head, in any of the layouts that are read?"""
    if not isinstance(source, str | Path):
        return False
    try:
        config = json.loads((Path(source) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(config, dict):
        return False
    named = [*(config.get("architectures") or []), config.get("speculators_model_type") or ""]
    return any("eagle" in str(name).lower() for name in named)
