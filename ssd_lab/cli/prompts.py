"""Prompts from arguments, a file, or stdin."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssd_lab.errors import PromptError

_KEYS = ("prompt", "text")


def read_prompts(arguments: Sequence[str] | None, file: str | None, limit: int | None = None) -> list[Any] | None:
    """The prompts asked for; None if none were, so that the canned ones are taken. `-` is stdin."""
    prompts: list[Any] = []
    for argument in arguments or ():
        prompts += _lines(sys.stdin.read()) if argument == "-" else [argument]
    if file is not None:
        prompts += _read_file(file)
        if not prompts:
            raise PromptError(f"{file} holds no prompt")
    if not prompts and arguments:
        raise PromptError("stdin holds no prompt")
    if not prompts:
        if limit is None:
            return None
        from ssd_lab.demo import canned_prompts

        prompts = list(canned_prompts())
    return prompts[:limit]


def _read_file(file: str) -> list[Any]:
    if file == "-":
        return _lines(sys.stdin.read())
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"prompts cannot be read from {file}: {error}") from error
    if path.suffix != ".jsonl":
        return _lines(text)
    return [_from_json(line, f"{file}, line {number}") for number, line in enumerate(text.splitlines(), 1) if line]


def _lines(text: str) -> list[str]:
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
        for key in _KEYS:
            if isinstance(record.get(key), str | list):
                return record[key]
    raise PromptError(f"{place}: expected a string, or an object with {' or '.join(map(repr, _KEYS))}")
