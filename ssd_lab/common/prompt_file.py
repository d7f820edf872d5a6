"""A user's file of prompts: `.txt` (one a line) or `.jsonl` (a string, or an object with `prompt` or `text`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ssd_lab.errors import PromptError

KEYS = ("prompt", "text")


def read_prompt_file(file: str | Path) -> list[Any]:
    """Its prompts: texts, token ids or chats. Raises PromptError with the place of what is wrong."""
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"prompts cannot be read from {file}: {error}") from error
    if path.suffix == ".jsonl":
        lines = enumerate(text.splitlines(), 1)
        prompts = [_from_json(line, f"{file}, line {number}") for number, line in lines if line]
    else:
        prompts = prompt_lines(text)
    if not prompts:
        raise PromptError(f"{file} holds no prompt")
    return prompts


def prompt_lines(text: str) -> list[Any]:
    """One prompt a line."""
    return [line for line in text.splitlines() if line.strip()]


def _from_json(line: str, place: str) -> Any:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise PromptError(f"{place}: not JSON ({error})") from error
    if isinstance(record, str):
        return record
    if isinstance(record, dict):
        for key in KEYS:
            if isinstance(record.get(key), str | list):
                return record[key]
    raise PromptError(f"{place}: expected a string, or an object with {' or '.join(map(repr, KEYS))}")
