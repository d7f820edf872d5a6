"""Prompts from arguments, a file, or stdin."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from ssd_lab.common.prompt_file import prompt_lines, read_prompt_file
from ssd_lab.errors import PromptError

STDIN = "-"


def read_prompts(arguments: Sequence[str] | None, file: str | None, limit: int | None = None) -> list[Any] | None:
    """The prompts asked for; None if none were, so that the canned ones are taken. `-` is stdin."""
    prompts: list[Any] = []
    for argument in arguments or ():
        prompts += prompt_lines(sys.stdin.read()) if argument == STDIN else [argument]
    if file is not None:
        prompts += prompt_lines(sys.stdin.read()) if file == STDIN else read_prompt_file(file)
    if not prompts and (arguments or file is not None):
        raise PromptError("stdin holds no prompt")
    if not prompts and limit is None:
        return None
    if not prompts:
        from ssd_lab.demo import canned_prompts

        prompts = list(canned_prompts())
    return prompts[:limit]
