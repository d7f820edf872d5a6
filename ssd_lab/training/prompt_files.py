"""Prompts in files: read, and some kept to measure on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssd_lab.errors import PromptError

_HELD_OUT_SHARE, _HELD_OUT_MOST = 20, 100  # every twentieth prompt, at most so many, is kept to measure on


def read_prompt_texts(path: Path) -> list[str]:
    """Prompts of a .jsonl (objects with `prompt` or `text`, or strings) or of a text file, one a line."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"prompts cannot be read from {path}: {error}") from error
    texts: list[str] = []
    for number, line in enumerate(lines, 1):
        record: Any = line
        if path.suffix == ".jsonl":
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise PromptError(f"{path}, line {number}: not JSON ({error})") from error
        text = (record.get("prompt") or record.get("text")) if isinstance(record, dict) else record
        if not isinstance(text, str) or not text:
            raise PromptError(f"{path}, line {number}: an object with `prompt` or `text` is wanted, or a string")
        texts.append(text)
    if not texts:
        raise PromptError(f"{path} holds no prompt")
    return texts


def held_out(prompts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Prompts to train on and others to measure on, always the same split of the same prompts."""
    if len(prompts) < 2:
        raise PromptError("one prompt is not enough: some are trained on, others measured on")
    every = max(_HELD_OUT_SHARE, -(-len(prompts) // _HELD_OUT_MOST)) if len(prompts) >= _HELD_OUT_SHARE else 2
    tests = list(prompts[::every])
    known = set(tests)
    return [prompt for prompt in prompts if prompt not in known], tests
