"""Prompts for the teacher: a file of real ones and a seeded generator, kept apart from every test prompt."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from studies.bundled_models import prompt_code, prompt_math, prompt_text

NON_COMMERCIAL_PARTS = frozenset({"alpaca_long", "code_alpaca_2k"})
_RUN_WORDS = 13  # a shared run of this many words counts as the same text


@dataclass(frozen=True)
class Prompt:
    """One prompt; `result` is the number a right answer ends in, where that is known."""

    text: str
    kind: str
    result: str | None = None
    own: bool = True

    @property
    def asked(self) -> str:
        """What the teacher is asked: a bare function stub needs a word about what to do with it."""
        if self.kind == "code" and self.text.startswith(("def ", "from typing")):
            return f"Complete this Python function. Reply with the whole function.\n\n{self.text}"
        return self.text


def normalise(text: str) -> str:
    """Lower case, words only: how prompts are compared."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def file_prompts(path: Path, *, max_characters: int = 3_000) -> list[Prompt]:
    """The commercially usable rows of a prompt file (`dataset`, `prompt`, `reference`)."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        Prompt(row["prompt"], row["dataset"], own=False)
        for row in rows
        if row["dataset"] not in NON_COMMERCIAL_PARTS and len(row["prompt"]) <= max_characters
    ]


def own_prompts(count: int, *, seed: int) -> list[Prompt]:
    """`count` different prompts, always the same for the same seed."""
    rng = random.Random(f"prompts-{seed}")
    seen: set[str] = set()
    made: list[Prompt] = []
    misses = 0
    while len(made) < count and misses < 20 * count:
        prompt = _one(rng)
        if prompt.text in seen:
            misses += 1
            continue
        seen.add(prompt.text)
        made.append(prompt)
    return made


def _one(rng: random.Random) -> Prompt:
    # Few exercises: the teacher gets most of them wrong, and wrong answers are thrown away.
    kind = rng.choices(["text", "math", "code"], weights=[84, 7, 9])[0]
    if kind == "math":
        question, result = prompt_math.problem(rng)
        return Prompt(question, "math", result)
    if kind == "code":
        return Prompt(prompt_code.code_prompt(rng), "code")
    family, text = prompt_text.text_prompt(rng)
    return Prompt(text, family)


def word_runs(text: str) -> set[str]:
    """All runs of 13 words of a text."""
    tokens = normalise(text).split()
    return {" ".join(tokens[i : i + _RUN_WORDS]) for i in range(len(tokens) - _RUN_WORDS + 1)}


def without_overlap(prompts: Iterable[Prompt], test_texts: Iterable[str]) -> list[Prompt]:
    """Leave out prompts that equal a test prompt or share a run of 13 words with one."""
    tests = list(test_texts)
    equal = {normalise(text) for text in tests}
    runs: set[str] = set()
    for text in tests:
        runs |= word_runs(text)
    return [p for p in prompts if normalise(p.text) not in equal and not (word_runs(p.text) & runs)]
