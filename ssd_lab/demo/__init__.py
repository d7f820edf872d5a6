"""The bundled models, their tokenizer and canned prompts."""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = Path(__file__).parent
TARGET = FOLDER / "target"
DRAFT = FOLDER / "draft"
NAMED = {"bundled-target": TARGET, "bundled-draft": DRAFT}  # wherever a model is named
EAGLE3 = FOLDER / "eagle3"  # an EAGLE3 head for the bundled target


def canned_prompts() -> list[str]:
    """The prompts that a run uses when none are given."""
    lines = (FOLDER / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["prompt"] for line in lines if line]
